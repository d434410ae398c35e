"""Every kind of body, and every way in which one can be wrong: a stated status, never a 500."""

import base64
import io
import json
import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runtime.images import ImageFormat, Pixels, encode
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import JPEG, PNG, Serve, running
from tests.waiting import until

URL = "/v1/score?model=scorer"


def picture(mode: str, form: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels, "RGBA") if mode == "RGBA" else Image.fromarray(pixels[..., :3])
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode not in {"RGB", "RGBA"}:
        image = image.convert(mode)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


GOOD = {
    "jpeg": (picture("RGB", "JPEG"), "image/jpeg"),
    "jpg": (picture("RGB", "JPEG"), "image/jpg"),
    "progressive": (picture("RGB", "JPEG", progressive=True), "image/jpeg"),
    "grey jpeg": (picture("L", "JPEG"), "image/jpeg"),
    "cmyk": (picture("CMYK", "JPEG"), "image/jpeg"),
    "exif": (picture("RGB", "JPEG", exif=exif(6)), "image/jpeg"),
    "png": (picture("RGB", "PNG"), "image/png"),
    "alpha": (picture("RGBA", "PNG"), "image/png"),
    "palette": (picture("P", "PNG"), "image/png"),
    "16 bit": (picture("I;16", "PNG"), "image/png"),
    "one bit": (picture("1", "PNG"), "image/png"),
    "webp": (picture("RGB", "WEBP"), "image/webp"),
    "bmp": (picture("RGB", "BMP"), "image/bmp"),
    "unnamed": (picture("RGB", "PNG"), "application/octet-stream"),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_image_in_every_body_scores_the_same(client: httpx.Client, name: str) -> None:
    data, media_type = GOOD[name]
    text = base64.encodebytes(data).decode()  # with line breaks, as base64(1) writes it
    replies = [
        client.post(URL, content=data, headers={"Content-Type": f"{media_type}; charset=binary"}),
        client.post(URL, files={"image": ("a", data, media_type)}),
        client.post(URL, files={"file": ("a", data)}),
        client.post(URL, json={"image": text}),
        client.post(URL, json={"image": f"data:{media_type};base64,{text}"}),
    ]
    assert [reply.status_code for reply in replies] == [200] * 5, replies[0].text
    assert len({reply.json()["score"] for reply in replies}) == 1


def test_exif_orientation_is_applied(client: httpx.Client) -> None:
    upright, turned = picture("RGB", "JPEG"), picture("RGB", "JPEG", exif=exif(6))
    scores = {client.post(URL, content=data, headers=JPEG).json()["score"] for data in (upright, turned)}
    assert len(scores) == 2


JPEG_BYTES = GOOD["jpeg"][0]
JSON = "application/json"
BAD = {
    "empty": (b"", "image/jpeg", 400),
    "truncated": (JPEG_BYTES[:-200], "image/jpeg", 400),
    "header only": (JPEG_BYTES[:20], "image/jpeg", 400),
    "random": (np.random.default_rng(0).bytes(5000), "image/jpeg", 415),
    "mislabelled": (JPEG_BYTES, "image/png", 415),
    "gif": (b"GIF89a", "image/gif", 415),
    "text": (b"hello", "text/plain", 415),
    "no type": (JPEG_BYTES, "", 415),
    "curl without -H": (JPEG_BYTES, "application/x-www-form-urlencoded", 415),
    "no boundary": (b"--x--", "multipart/form-data", 422),
    "empty form": (b"--x--\r\n", "multipart/form-data; boundary=x", 422),
    "damaged form": (b"nonsense", "multipart/form-data; boundary=x", 400),
    "cut form": (
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc',
        "multipart/form-data; boundary=x",
        400,
    ),
    "long boundary": (b"--x--", "multipart/form-data; boundary=" + "x" * 1000, 400),
    "no json": (b"{", JSON, 422),
    "deep json": (b"[" * 200_000, JSON, 422),
    "wide number": (b"1" * 100_000, JSON, 422),
    "other json": (b'{"url": "http://127.0.0.1/secret"}', JSON, 422),
    "json list": (b"[]", JSON, 422),
    "null": (b'{"image": null}', JSON, 422),
    "no base64": (b'{"image": "http://127.0.0.1/a.jpg"}', JSON, 400),
    "surrogate": (b'{"image": "\\ud800"}', JSON, 400),
    "no bytes": (b'{"image": ""}', JSON, 400),
    "false data url": (b'{"image": "data:image/png;base64,' + base64.b64encode(JPEG_BYTES) + b'"}', JSON, 415),
    "more than an image": (json.dumps({"image": "", "model": "scorer"}).encode(), JSON, 422),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_body_has_its_status_and_says_the_cure(client: httpx.Client, name: str) -> None:
    data, media_type, status = BAD[name]
    reply = client.post(URL, content=data, headers={"Content-Type": media_type} if media_type else {})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["detail"]


def test_other_fields_are_refused(client: httpx.Client) -> None:
    reply = client.post(URL, files={"picture": ("a.jpg", JPEG_BYTES, "image/jpeg")})
    assert (reply.status_code, "field image" in reply.json()["detail"]) == (422, True)


def test_a_json_batch(client: httpx.Client) -> None:
    good = base64.b64encode(JPEG_BYTES).decode()
    results = client.post(URL, json={"images": [good, "!", good]}).json()["results"]
    assert ["error" in result for result in results] == [False, True, False]


def test_too_many_images_are_413(client: httpx.Client) -> None:
    parts = [("image", ("a", b"x"))] * 33
    assert client.post(URL, files=parts).status_code == 413
    assert client.post(URL, json={"images": ["eA=="] * 33}).status_code == 413


def test_too_many_pixels_are_413(client: httpx.Client, frame: Pixels) -> None:
    bomb = bytearray(encode(frame, ImageFormat.BMP))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2
    reply = client.post(URL, content=bytes(bomb), headers={"Content-Type": "image/bmp"})
    assert reply.status_code == 413


def test_too_many_bytes_are_413_before_they_are_held(serve: Serve, models: Path) -> None:
    client = serve(models, max_image_bytes=2**24)
    sent = 0

    def endless() -> bytes:
        nonlocal sent
        sent += 2**20
        return b"\0" * 2**20

    reply = client.post(URL, content=(endless() for _ in range(24)), headers=JPEG)  # no Content-Length
    assert reply.status_code == 413
    declared = client.post(URL, content=b"\0" * (2**24 + 1), headers=PNG)
    assert (declared.status_code, "at most" in declared.json()["detail"]) == (413, True)


def test_one_part_that_is_too_large_fails_alone(serve: Serve, models: Path) -> None:
    client = serve(models, max_image_bytes=65_536)
    parts = [("image", ("a", b"\0" * 65_537)), ("image", ("b", JPEG_BYTES))]
    results = client.post(URL, files=parts).json()["results"]
    assert results[0]["error"]["status"] == 413
    assert "score" in results[1]
    too_much = base64.b64encode(b"\0" * 65_537).decode()
    assert client.post(URL, json={"image": too_much}).status_code == 413


def test_a_body_that_does_not_arrive_is_408(serve: Serve, models: Path) -> None:
    client = serve(models, upload_timeout_s=0.05)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


TYPES = st.sampled_from(
    ["application/json", "multipart/form-data; boundary=x", "image/png", "image/jpeg", "text/plain", ";"]
)
BODIES = (
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(
        lambda value: json.dumps({"image": value}).encode()
    )
    | st.builds(
        lambda name, head, data: (
            b'--x\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n--x--\r\n' % (name, head, data)
        ),
        st.sampled_from([b"image", b"", b'"', b"file\xff"]),
        st.binary(max_size=30),
        st.binary(max_size=50),
    )
)


@given(TYPES, BODIES)
def test_no_body_is_a_500(client: httpx.Client, media_type: str, body: bytes) -> None:
    reply = client.post(URL, content=body, headers={"Content-Type": media_type})
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.headers["content-type"] == "application/problem+json"


def test_bodies_of_all_requests_together_are_bounded(models: Path) -> None:
    app = create_app(Settings(models_dir=models, max_held_bytes=100_000))
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 200000\r\n\r\n"
    with running(app) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as other:
            other.sendall(head + bytes(99_000))
            until(lambda: app.state.service.scheduler._body_bytes == 99_000)
            refused = client.post(URL, content=JPEG_BYTES, headers=JPEG)
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:clearwatch:problem:overloaded")
            assert refused.headers["retry-after"]
        until(lambda: app.state.service.scheduler._body_bytes == 0)
        assert client.post(URL, content=JPEG_BYTES, headers=JPEG).status_code == 200


def test_a_large_frame_is_served_as_a_small_one(serve: Serve, models: Path, jpeg: bytes, client: httpx.Client) -> None:
    """With 60 x 80 pixels it is all that is accepted, so it waits its turn; the answer is the same."""
    narrow = serve(models, max_image_pixels=60 * 80)
    parts = [("image", ("a.jpg", jpeg, "image/jpeg"))] * 3
    for query in ("", "&heatmap=overlay"):
        expected = client.post(f"{URL}{query}", content=jpeg, headers=JPEG).json()
        for found in narrow.post(f"{URL}{query}", files=parts).json()["results"]:
            assert found | {"timing_ms": None} == expected | {"timing_ms": None}
    assert narrow.post("/v1/denoise", content=jpeg, headers=JPEG).status_code == 200
    assert narrow.post("/v1/cameras/a/frames?model=scorer", content=jpeg, headers=JPEG).status_code == 200
