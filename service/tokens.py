"""Bearer tokens: who may do what. Only their hashes are kept.

    python -m service.tokens entrance --scopes score >> tokens

shows a new token, once, and adds the line by which the service knows it.
"""

import argparse
import hashlib
import hmac
import json
import secrets
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from runtime.manifest import Frozen, Sha256

TOKEN_BYTES = 32


class Scope(StrEnum):
    """What a token opens."""

    SCORE = "score"  # send frames: score, denoise, reconstruct, encode, sample, cameras
    READ = "read"  # look at models and cameras
    METRICS = "metrics"
    ADMIN = "admin"  # change what is served


ALL = frozenset(Scope)


class Token(Frozen):
    """A token as the service knows it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Sha256
    scopes: frozenset[Scope] = Field(min_length=1)

    @classmethod
    def of(cls, secret: str, name: str, scopes: Iterable[Scope] = ALL) -> "Token":
        """Hash a secret. A random one needs no slow hash: there is nothing to guess from."""
        return cls(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), scopes=frozenset(scopes))


class Keyring:
    """The tokens that open the service; without any, everybody may do everything."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a token."""
        return not self._tokens

    def find(self, secret: bytes) -> Token | None:
        """Return the token with this secret; how long that takes tells nothing of the secrets."""
        digest = hashlib.sha256(secret).hexdigest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found


def read_tokens(path: Path) -> list[Token]:
    """Read a file of tokens: one JSON object a line. Raises ValueError that names the file and the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            tokens.append(Token.model_validate_json(line))
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, item['loc']))} {item['msg']}".strip() for item in error.errors())
            raise ValueError(f"{path}, line {number}: {what}; `python -m service.tokens NAME` makes one") from error
    if not tokens:
        raise ValueError(f"{path} holds no token; `python -m service.tokens NAME` makes one")
    return tokens


def required_scope(method: str, path: str) -> Scope:
    """Return what a token must open for this call. What is not known is for the administrator."""
    if path == "/metrics":
        return Scope.METRICS
    if method in {"GET", "HEAD"}:
        return Scope.READ
    return Scope.ADMIN if path.startswith("/v1/models") or not path.startswith("/v1/") else Scope.SCORE


def main(arguments: list[str] | None = None) -> int:
    """Make a token."""
    parser = argparse.ArgumentParser(
        prog="python -m service.tokens",
        description="Make a bearer token. The token is shown once, on stderr; the line for CLEARWATCH_TOKENS_FILE goes "
        "to stdout.",
    )
    parser.add_argument("name", help="whose it is; it appears in the log")
    parser.add_argument("--scopes", nargs="+", type=Scope, choices=list(Scope), default=[Scope.SCORE, Scope.READ],
                        help="what it opens (default: score read)")  # fmt: skip
    chosen = parser.parse_args(arguments)
    secret = secrets.token_urlsafe(TOKEN_BYTES)
    try:
        token = Token.of(secret, chosen.name, chosen.scopes)
    except ValidationError:
        parser.error(f"{chosen.name!r} is no name: letters, digits, dot, dash and underscore, 64 at most")
    print(f"the token of {chosen.name}, which is kept nowhere: {secret}", file=sys.stderr)
    print(json.dumps({"name": token.name, "sha256": token.sha256, "scopes": sorted(token.scopes)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
