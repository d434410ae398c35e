"""Tokens: made once, kept as hashes, and each opens what its scopes say."""

import json
from pathlib import Path

import pytest

from service.tokens import Keyring, Scope, Token, main, read_tokens, required_scope


def test_a_keyring_finds_the_token_of_a_secret() -> None:
    first, second = Token.of("first secret", "a", [Scope.SCORE]), Token.of("second secret", "b")
    keyring = Keyring([first, second])
    assert not keyring.is_open
    assert keyring.find(b"first secret") == first
    assert keyring.find(b"second secret") == second
    for wrong in (b"", b"first secret ", b"First secret", b"\xff\xfe", first.sha256.encode()):
        assert keyring.find(wrong) is None


def test_an_empty_keyring_is_open() -> None:
    assert Keyring().is_open
    assert Keyring().find(b"anything") is None


def test_the_secret_is_not_kept() -> None:
    assert "top secret" not in repr(Token.of("top secret", "a"))


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/score", Scope.SCORE),
        ("POST", "/v1/cameras/door/frames", Scope.SCORE),
        ("DELETE", "/v1/cameras/door", Scope.SCORE),
        ("GET", "/v1/models", Scope.READ),
        ("HEAD", "/v1/models/walkway", Scope.READ),
        ("GET", "/v1/cameras", Scope.READ),
        ("GET", "/metrics", Scope.METRICS),
        ("POST", "/v1/models:reload", Scope.ADMIN),
        ("POST", "/v1/models/walkway/calibrations", Scope.ADMIN),
        ("DELETE", "/v1/models/walkway/calibrations/door", Scope.ADMIN),
        ("POST", "/something/new", Scope.ADMIN),
    ],
)
def test_what_a_call_needs(method: str, path: str, scope: Scope) -> None:
    assert required_scope(method, path) is scope


def test_a_new_token_is_shown_once_and_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["entrance", "--scopes", "score"]) == 0
    shown = capsys.readouterr()
    secret = shown.err.strip().rpartition(" ")[2]
    assert len(secret) >= 40
    assert secret not in shown.out
    (tmp_path / "tokens").write_text(f"# cameras\n\n{shown.out}")
    (token,) = read_tokens(tmp_path / "tokens")
    assert (token.name, token.scopes) == ("entrance", frozenset({Scope.SCORE}))
    assert Keyring([token]).find(secret.encode()) == token


def test_tokens_are_random(capsys: pytest.CaptureFixture[str]) -> None:
    main(["a"])
    main(["a"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["sha256"] != second["sha256"]
    assert first["scopes"] == ["read", "score"]


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["two words"])
    assert "letters, digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no token"),
        ("# nothing yet\n", "holds no token"),
        ("secret", "line 1: "),
        ('{"name": "a", "sha256": "12", "scopes": ["score"]}', "line 1: sha256"),
        ('{"name": "a", "sha256": "%s", "scopes": ["root"]}' % ("0" * 64), "line 1: scopes"),
        ('{"name": "a", "sha256": "%s", "scopes": []}' % ("0" * 64), "line 1: scopes"),
        ('# one\n{"name": "a", "secret": "x"}', "line 2: "),
    ],
)
def test_a_file_that_is_none_says_where_and_the_cure(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"python -m service\.tokens NAME") as caught:
        read_tokens(path)
    assert f"{path}" in str(caught.value)
    assert complaint in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_tokens(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read"):
        read_tokens(tmp_path / "binary")
