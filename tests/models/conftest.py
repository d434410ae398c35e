"""The shipped denoisers, clean frames for them, and the way of a frame through the service, HTTP left out."""

from pathlib import Path

import pytest

from runtime.devices import Device
from runtime.images import ImageFormat, Limits, Pixels, decode, encode, read
from runtime.manifest import Task, read_manifest
from runtime.model import Model
from service.denoising import Denoiser, DenoisingWhole, Wish
from service.negotiation import Accept
from service.uploads import UploadedImage
from service.work import run_batch
from tests.models.scenes import DRAWN, drawn

MODELS = Path(__file__).parents[2] / "models"
DENOISERS = [
    path.parent.name
    for path in sorted(MODELS.glob("*/manifest.json"))
    if Task.DENOISE in read_manifest(path.parent).tasks
]
REAL = ("bsds500/cbsd68", "set12", "nam25/gt")  # each gives its first image


def denoised(model: Model, frame: Pixels, sigma: float | None = None, strength: float = 1) -> Pixels:
    """Send a frame the service's way: blind, or at a noise level."""
    wish = Wish(sigma, strength, Accept.parse(""))
    image = UploadedImage(encode(frame, ImageFormat.PNG), ImageFormat.PNG.value.media_type, Limits())
    work = DenoisingWhole(Denoiser(model, wish, tile_pixels=frame.size), image)
    outputs = run_batch(model, [work.prepare()], work.wants)
    return decode(work.finish(outputs[0]).data).pixels


@pytest.fixture(scope="session", params=DENOISERS)
def denoiser(request: pytest.FixtureRequest, cpu: Device) -> Model:
    """Give each shipped denoiser."""
    return Model.open(MODELS / request.param, cpu)


@pytest.fixture(params=[*DRAWN, *(pytest.param(name, marks=pytest.mark.data) for name in REAL)])
def clean(request: pytest.FixtureRequest) -> Pixels:
    """Give each clean frame: those drawn, and of every data set the middle of the first image."""
    name: str = request.param
    return drawn(name) if name in DRAWN else _middle(request.getfixturevalue("data_set")(name))


def _middle(folder: Path, side: int = 192) -> Pixels:
    pixels = read(min(path for path in folder.iterdir() if path.is_file()), channels=3).pixels
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]
