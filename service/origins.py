"""Where nobody needs a token: which requests are the work of somebody else's web page.

A browser lets any page send requests to any address that it can reach, loopback too, and says in `Origin` whose page
it was. A page whose name is made to point at this machine (DNS rebinding) is of one origin with the service, but cannot
hide its name: that is in `Host`. Programs send no `Origin`, and name the service by its address.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from runtime.errors import ForeignPage


class Origins:
    """The pages that may call without a token: those the service sends itself, and those that are named."""

    def __init__(self, named: Iterable[str], *, any_host: bool) -> None:
        """With `any_host` the service goes by names of which it knows nothing: a proxy in front answers for them."""
        self._named = frozenset(origin.encode() for origin in named)
        self._any_host = any_host

    def refusal(self, headers: Mapping[bytes, bytes]) -> ForeignPage | None:
        """Say why a request with these headers is refused; None: it is not."""
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        if not self._any_host and not _is_address_or_loopback(host):
            return ForeignPage(
                f"the Host is {host[:80].decode('latin-1')!r}; without a token call by address or as localhost, set "
                "CLEARWATCH_TOKEN, or CLEARWATCH_ALLOW_ANONYMOUS=true if a proxy in front asks for credentials"
            )
        if origin is None or origin in self._named or origin in {b"http://" + host, b"https://" + host}:
            return None
        return ForeignPage(
            f"pages of {origin[:80].decode('latin-1')} may not call; name them in CLEARWATCH_CORS_ORIGINS to let them"
        )


@lru_cache(maxsize=64)
def _is_address_or_loopback(host: bytes) -> bool:
    """Tell whether no name server had a say in it; without a Host it was no browser."""
    try:
        name = (urlsplit("//" + host.decode("ascii")).hostname or "").removesuffix(".")
        return host == b"" or name == "localhost" or name.endswith(".localhost") or bool(ip_address(name))
    except ValueError:
        return False
