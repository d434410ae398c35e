"""POST /v1/denoise, /v1/reconstruct and /v1/encode: what comes back is what the runtime computes, as was asked."""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.devices import Device
from runtime.images import ImageFormat, Pixels, decode, encode
from runtime.model import Floats, Model, Outputs
from tests.model_folders import write_denoiser
from tests.service.conftest import JPEG, PNG, Serve
from tests.waiting import until


def grey_noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(2).integers(0, 256, (height, width, 1), np.uint8)


def denoised(model: Model, pixels: Pixels, level: float) -> Pixels:
    answer = model.run(pixels[None], np.asarray([level], np.float32))[0].reconstruction
    assert answer is not None
    return answer


@pytest.fixture
def denoiser(models: Path, cpu: Device) -> Model:
    return Model.open(models / "denoiser", cpu)


def test_denoise_estimates_the_level(client: httpx.Client, denoiser: Model, png: bytes, frame: Pixels) -> None:
    level = denoiser.estimate_noise_level(frame)
    reply = client.post("/v1/denoise", content=png, headers=PNG)
    assert reply.headers["content-type"] == "image/png"
    assert float(reply.headers["x-noise-level"]) == pytest.approx(level, rel=1e-5)
    assert reply.headers["x-model"] == "denoiser"
    assert np.array_equal(decode(reply.content).pixels, denoised(denoiser, frame, min(level, 50)))


@pytest.mark.parametrize(
    ("query", "effective"),
    [
        ("sigma=10", 10),
        ("sigma=10&strength=2", 20),
        ("sigma=10&strength=0", 0),
        ("sigma=0", 0),
        ("sigma=255", 50),  # the strongest that the model was trained for
    ],
)
def test_strength_multiplies_sigma(
    client: httpx.Client, denoiser: Model, frame: Pixels, query: str, effective: int
) -> None:
    reply = client.post(f"/v1/denoise?{query}", content=encode(frame, ImageFormat.PNG), headers=PNG)
    assert reply.headers["x-noise-level"] == query.removeprefix("sigma=").partition("&")[0]
    assert np.array_equal(decode(reply.content).pixels, denoised(denoiser, frame, effective))


@pytest.mark.parametrize("query", ["sigma=-1", "sigma=256", "strength=2.1", "sigma=nan", "strength=inf", "strengh=1"])
def test_parameters_have_bounds(client: httpx.Client, png: bytes, query: str) -> None:
    reply = client.post(f"/v1/denoise?{query}", content=png, headers=PNG)
    assert (reply.status_code, reply.json()["errors"][0]["loc"]) == (422, ["query", query.partition("=")[0]])


def test_grey_stays_grey(client: httpx.Client) -> None:
    data = encode(grey_noise(30, 40), ImageFormat.PNG)
    picture = decode(client.post("/v1/denoise", content=data, headers=PNG).content)
    assert (picture.grey, picture.pixels.shape) == (True, (30, 40, 1))


@pytest.mark.parametrize("form", list(ImageFormat))
def test_the_reply_has_the_format_that_was_sent(client: httpx.Client, frame: Pixels, form: ImageFormat) -> None:
    headers = {"Content-Type": form.value.media_type}
    reply = client.post("/v1/denoise", content=encode(frame, form), headers=headers)
    assert reply.headers["content-type"] == form.value.media_type
    assert decode(reply.content).format is form


def test_a_webp_without_loss_stays_without(client: httpx.Client, frame: Pixels) -> None:
    webp = encode(frame, ImageFormat.WEBP, lossless=True)
    for accept in ("*/*", "image/webp"):
        reply = client.post(
            "/v1/denoise?sigma=0", content=webp, headers={"Content-Type": "image/webp", "Accept": accept}
        )
        picture = decode(reply.content)
        assert (picture.format, picture.lossless) == (ImageFormat.WEBP, True)
        assert np.array_equal(picture.pixels, frame)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("image/webp", "image/webp"),
        ("image/png;q=0.5, image/jpeg;q=0.9", "image/jpeg"),
        ("*/*", "image/png"),
        ("image/*, image/png;q=0.1", "image/jpeg"),
        ("text/html, image/jpeg;q=0.1", "image/jpeg"),
    ],
)
def test_or_the_format_that_is_asked_for(client: httpx.Client, png: bytes, accept: str, expected: str) -> None:
    reply = client.post("/v1/denoise", content=png, headers=PNG | {"Accept": accept})
    assert reply.headers["content-type"] == expected


def test_what_cannot_be_given_is_406(client: httpx.Client, png: bytes) -> None:
    reply = client.post("/v1/denoise", content=png, headers=PNG | {"Accept": "text/html"})
    assert (reply.status_code, reply.headers["content-type"]) == (406, "application/problem+json")


def test_an_image_in_json(client: httpx.Client, png: bytes) -> None:
    body = {"image": "data:image/png;base64," + base64.b64encode(png).decode()}
    asked = client.post("/v1/denoise?sigma=5", json=body, headers={"Accept": "application/json"}).json()
    assert (asked["media_type"], asked["noise_level"], asked["model"]["name"]) == ("image/png", 5, "denoiser")
    assert base64.b64decode(asked["image"]) == client.post("/v1/denoise?sigma=5", content=png, headers=PNG).content


def test_large_frames_in_tiles_equal_the_whole(serve: Serve, models: Path, denoiser: Model) -> None:
    client = serve(models, tile_pixels=64 * 64)
    large = np.random.default_rng(3).integers(0, 256, (251, 333, 3), np.uint8)
    reply = client.post("/v1/denoise?sigma=20", content=encode(large, ImageFormat.PNG), headers=PNG)
    assert np.array_equal(decode(reply.content).pixels, denoised(denoiser, large, 20))
    batch = [("image", ("a.png", encode(large, ImageFormat.PNG), "image/png"))] * 2
    results = client.post("/v1/denoise?sigma=20", files=batch).json()["results"]
    assert [base64.b64decode(result["image"]) for result in results] == [reply.content, reply.content]


def test_a_small_frame_is_answered_between_the_tiles_of_a_large_one(
    serve: Serve, models: Path, png: bytes, frame: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker, and tiles that each wait to be let go: after the first of them comes the small frame."""
    run, let_go = Model.run, threading.Semaphore(0)
    order: list[str] = []

    def note_and_run(model: Model, frames: Pixels, level: Floats, **others: Any) -> Outputs:  # noqa: ANN401
        is_tile = frames.shape[1:] != frame.shape
        order.append("tile" if is_tile else "small")
        assert not is_tile or let_go.acquire(timeout=20)
        return run(model, frames, level, **others)

    monkeypatch.setattr(Model, "run", note_and_run)
    client = serve(models, workers=1, tile_pixels=80 * 80)
    large = encode(grey_noise(300, 100), ImageFormat.PNG)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/v1/denoise?sigma=20", content=large, headers=PNG)
        until(lambda: order == ["tile"])
        second = pool.submit(client.post, "/v1/denoise?sigma=20", content=png, headers=PNG)
        until(lambda: "clearwatch_queue_jobs 1.0" in client.get("/metrics").text.splitlines())
        let_go.release()
        assert second.result().status_code == 200
        assert not first.done()
        let_go.release(1000)
        assert first.result().status_code == 200
    assert order[:3] == ["tile", "small", "tile"]
    assert order.count("tile") > 3


def test_an_infrared_frame_in_three_channels_keeps_them_equal(serve: Serve, tmp_path: Path) -> None:
    """Even where a model tells the channels apart, and in tiles as well as whole."""
    write_denoiser(tmp_path / "denoiser", tint=(0, 4, 8))
    client = serve(tmp_path, tile_pixels=64 * 64)
    for size in ((40, 60), (100, 90)):
        infrared = np.repeat(grey_noise(*size), 3, axis=2)
        reply = client.post("/v1/denoise?sigma=20", content=encode(infrared, ImageFormat.PNG), headers=PNG)
        result = decode(reply.content).pixels
        assert result.shape == infrared.shape
        assert (result == result[..., :1]).all()


def nearly_grey(height: int, width: int) -> Pixels:
    """Give grey noise with channels 3 levels apart, a line in yellow and a pixel in blue."""
    grey = 30 + grey_noise(height, width) // 2
    frame: Pixels = grey + np.random.default_rng(5).integers(0, 4, (height, width, 3), np.uint8)
    frame[4, : width // 2] = (200, 200, 100)
    frame[height - 5, 7] = (100, 100, 200)
    return frame


@pytest.mark.parametrize("size", [(40, 60), (100, 90)], ids=["whole", "in tiles"])
def test_where_a_frame_is_nearly_grey_its_channels_change_alike(
    serve: Serve, tmp_path: Path, cpu: Device, size: tuple[int, int]
) -> None:
    """The noise gets no colour, and a timestamp keeps its own."""
    model = Model.open(write_denoiser(tmp_path / "denoiser", tint=(0, 4, 8)), cpu)
    frame = nearly_grey(*size)
    reply = serve(tmp_path, tile_pixels=64 * 64).post(
        "/v1/denoise?sigma=20", content=encode(frame, ImageFormat.PNG), headers=PNG
    )
    change = decode(reply.content).pixels.astype(int) - frame
    assert np.array_equal(change, np.broadcast_to(change[..., :1], change.shape))
    own = denoised(model, frame, 20).astype(int) - frame
    assert np.abs(change - own.mean(axis=2, keepdims=True)).max() <= 1
    assert np.abs(change).max() > 10


@pytest.mark.parametrize("share", [0.06, 1])
def test_a_frame_of_colours_gets_what_the_model_says(
    client: httpx.Client, denoiser: Model, share: float, frame: Pixels
) -> None:
    """Colours in a small part of a picture may have noise of their own."""
    coloured = np.repeat(frame[..., :1], 3, axis=2)
    rows = round(len(frame) * share + 0.5)
    coloured[:rows] = frame[:rows]
    reply = client.post("/v1/denoise?sigma=20", content=encode(coloured, ImageFormat.PNG), headers=PNG)
    assert np.array_equal(decode(reply.content).pixels, denoised(denoiser, coloured, 20))


def test_a_large_frame_over_the_limit_is_413_and_not_tiled(serve: Serve, models: Path) -> None:
    client = serve(models, tile_pixels=4096, max_image_pixels=10_000)
    reply = client.post("/v1/denoise", content=encode(grey_noise(101, 100), ImageFormat.PNG), headers=PNG)
    assert (reply.status_code, "10000" in reply.json()["detail"]) == (413, True)


def test_reconstruct_has_the_size_of_the_frame(client: httpx.Client, jpeg: bytes, frame: Pixels) -> None:
    reply = client.post("/v1/reconstruct?model=scorer", content=jpeg, headers=JPEG | {"Accept": "image/png"})
    assert decode(reply.content).pixels.shape[:2] == frame.shape[:2]
    score = client.post("/v1/score?model=scorer", content=jpeg, headers=JPEG).json()["score"]
    assert float(reply.headers["x-anomaly-score"]) == pytest.approx(score, rel=1e-5)


def test_a_model_without_scores_has_no_score_header(client: httpx.Client, jpeg: bytes) -> None:
    reply = client.post("/v1/reconstruct", content=jpeg, headers=JPEG)
    assert reply.headers["x-model"] == "generator"
    assert "x-anomaly-score" not in reply.headers


def test_encode(client: httpx.Client, models: Path, cpu: Device, png: bytes, jpeg: bytes) -> None:
    model = Model.open(models / "scorer", cpu)
    latent = model.run(model.fit(decode(png, channels=1).pixels)[None])[0].latent
    assert latent is not None
    reply = client.post("/v1/encode?model=scorer", content=png, headers=PNG).json()
    assert reply == {
        "model": {"name": "scorer", "version": "1", "sha256": model.manifest.sha256},
        "latent": latent.tolist(),
    }
    parts = [("image", ("a", png)), ("image", ("b", jpeg))]
    results = client.post("/v1/encode?model=scorer", files=parts).json()["results"]
    assert results[0] == reply


def test_a_task_that_the_model_does_not_have(client: httpx.Client, png: bytes) -> None:
    reply = client.post("/v1/denoise?model=scorer", content=png, headers=PNG)
    assert (reply.status_code, reply.json()["type"]) == (422, "urn:clearwatch:problem:task-not-supported")
    assert "reconstruct" in reply.json()["detail"]
