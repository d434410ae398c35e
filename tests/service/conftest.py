"""What the service's tests share: a folder of tiny models, and clients of real apps over them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from runtime.devices import DeviceChoice
from runtime.images import ImageFormat, Pixels, encode
from runtime.manifest import FrameInput
from service.app import create_app
from service.settings import Settings
from tests.model_folders import normal_frames, write_every_sort, write_scorer

Serve = Callable[..., httpx.Client]
JPEG = {"Content-Type": "image/jpeg"}
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with one model of every sort; not to be changed."""
    folder = write_every_sort(tmp_path_factory.mktemp("models"))
    write_scorer(folder / "uncalibrated", calibration=False)
    return folder


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve the app on a free loopback port, in a thread, until its models are open and then to the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            give_up = time.monotonic() + 20
            while client.get("/readyz").json()["status"] == "loading":
                assert time.monotonic() < give_up, "the models do not load"
                time.sleep(0.01)
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a function from settings to a client of a running app."""
    with ExitStack() as stack:

        def start(models_dir: Path, **values: object) -> httpx.Client:
            settings = Settings.model_validate({"models_dir": models_dir, "workers": 2, "device": "cpu"} | values)
            return stack.enter_context(running(create_app(settings)))

        yield start


@pytest.fixture(scope="session")
def client(models: Path) -> Iterator[httpx.Client]:
    """Give a client of one app over `models`, shared by the tests that change nothing in it."""
    with running(
        create_app(Settings(models_dir=models, workers=2, device=DeviceChoice.CPU, max_request_bytes=2**21))
    ) as client:
        yield client


@pytest.fixture(scope="session")
def frame() -> Pixels:
    """Give a noisy colour frame, [60, 80, 3]."""
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(scope="session")
def jpeg(frame: Pixels) -> bytes:
    """Give the frame as a JPEG."""
    return encode(frame, ImageFormat.JPEG)


@pytest.fixture(scope="session")
def png(frame: Pixels) -> bytes:
    """Give the frame as a PNG."""
    return encode(frame, ImageFormat.PNG)


@pytest.fixture(scope="session")
def quiet() -> bytes:
    """Give a PNG of a frame as the scorer was calibrated with."""
    return encode(normal_frames(1, FrameInput(channels=1, height=32, width=48))[0], ImageFormat.PNG)
