"""Where nobody needs a token no other site's page may call; programs and the service's own pages may."""

from pathlib import Path

import httpx
import pytest

from service.origins import Origins
from tests.service.conftest import JPEG, Serve

EVIL = {"Origin": "http://evil.example"}


def headers(host: str | None, origin: str | None) -> dict[bytes, bytes]:
    named = {b"host": host, b"origin": origin}
    return {name: value.encode("latin-1") for name, value in named.items() if value is not None}


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", None),
        ("localhost", None),
        ("LocalHost.:8000", None),
        ("cam.localhost:8000", None),
        ("[::1]:8000", None),
        ("192.0.2.7:8000", None),  # a tunnel, or a published port: a name server had no say in it
        (None, None),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "https://wall.example"),
    ],
)
def test_programs_own_pages_and_named_ones_may_call(host: str | None, origin: str | None) -> None:
    assert Origins(["https://wall.example"], any_host=False).refusal(headers(host, origin)) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://evil.example"),
        ("127.0.0.1:8000", "http://127.0.0.1:9000"),
        ("127.0.0.1:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "null"),
        ("127.0.0.1:8000", ""),
        (None, "null"),
        ("evil.example:8000", "http://evil.example:8000"),
        ("evil.example:8000", None),
        ("evil.example", "https://wall.example"),
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example", None),
        ("evil.example@localhost.evil.example", None),
        ("[::1", None),
        ("caf\u00e9", None),
        (":8000", None),
    ],
)
def test_other_pages_and_names_may_not(host: str | None, origin: str | None) -> None:
    assert Origins(["https://wall.example"], any_host=False).refusal(headers(host, origin)) is not None


def test_behind_a_proxy_every_name_is_good_and_other_pages_are_not() -> None:
    origins = Origins([], any_host=True)
    assert origins.refusal(headers("cameras.example", None)) is None
    assert origins.refusal(headers("cameras.example", "https://cameras.example")) is None
    assert origins.refusal(headers("cameras.example", "https://evil.example")) is not None


def test_a_foreign_page_is_refused_everywhere_but_on_open_paths(serve: Serve, models: Path, jpeg: bytes) -> None:
    client = serve(models)
    rebound = {"Host": f"evil.example:{client.base_url.port}"}
    for strange in (EVIL, rebound, rebound | {"Origin": f"http://{rebound['Host']}"}):
        refused = [
            client.post("/v1/score", content=jpeg, headers=JPEG | strange),
            client.post("/v1/models:reload", headers=strange),
            client.post("/v1/cameras/door/frames?model=clips", content=jpeg, headers=JPEG | strange),
            client.get("/v1/models", headers=strange),
            client.get("/metrics", headers=strange),
        ]
        assert {reply.status_code for reply in refused} == {403}
        assert {reply.json()["type"] for reply in refused} == {"urn:clearwatch:problem:foreign-page"}
        assert client.get("/docs", headers=strange).status_code == 200
    own = {"Origin": str(client.base_url).rstrip("/")}
    assert client.post("/v1/score", content=jpeg, headers=JPEG | own).status_code == 200


def test_with_tokens_the_token_decides(serve: Serve, models: Path) -> None:
    client = serve(models, token="long enough")  # noqa: S106 - a test's
    strange = EVIL | {"Host": "cameras.example", "Authorization": "Bearer long enough"}
    assert client.get("/v1/models", headers=strange).status_code == 200


def test_named_pages_may_call_without_a_token(serve: Serve, models: Path) -> None:
    client = serve(models, cors_origins="https://wall.example")
    reply = client.get("/v1/models", headers={"Origin": "https://wall.example"})
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "https://wall.example")


def test_anonymous_callers_behind_a_proxy_may_call_by_any_name(serve: Serve, models: Path) -> None:
    client: httpx.Client = serve(models, allow_anonymous=True)
    assert client.get("/v1/models", headers={"Host": "cameras.example"}).status_code == 200
    assert client.get("/v1/models", headers=EVIL).status_code == 403
