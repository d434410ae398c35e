"""`python -m service.healthcheck`: exit code 0 if the service of these settings is ready, for images without curl."""

import sys
from http.client import HTTPConnection, HTTPException

from service.settings import Settings, SettingsError, load_settings

TIMEOUT_S = 3.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what it listens on, not what we open


def check(settings: Settings) -> str:
    """Return what is wrong, or nothing. A plain connection: proxy variables do not matter."""
    host = settings.host.strip("[]")
    connection = HTTPConnection(_ANY.get(host, host), settings.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        return "" if reply.status == 200 else reply.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        return f"{settings.host} port {settings.port} does not answer: {error}"
    finally:
        connection.close()


def main() -> int:
    """Check; return the exit code."""
    try:
        problem = check(load_settings())
    except SettingsError as error:
        problem = str(error)
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
