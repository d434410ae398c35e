"""Clean frames drawn on the spot, uint8 [HEIGHT, WIDTH, 3], and what a camera does to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from runtime.images import Pixels

HEIGHT, WIDTH = 128, 192
FINE = 4  # drawn larger by this and averaged, for a lens shows no steps
TIMESTAMP = "2026-11-02 03:14:15"


def _levels(values: npt.NDArray[np.float64]) -> Pixels:
    """Clip to 0..255 and round, as a file does."""
    return np.asarray(np.rint(values.clip(0, 255)), np.uint8)


def _seen(image: Image.Image) -> Pixels:
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX))


def gradient() -> Pixels:
    """Give a sky: brighter to the right, bluer upwards, nothing else."""
    rows, columns = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    return _levels(np.stack([60 + 120 * columns, 70 + 90 * rows, 190 - 100 * rows], axis=2))


def dead_leaves() -> Pixels:
    """Give the texture that cameras are tested with: discs over discs, as many small as natural scenes have."""
    rng = np.random.default_rng(1)
    image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE))
    draw = ImageDraw.Draw(image)
    for radius in 1 / rng.uniform(1 / 300, 1 / 6, 3000):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        red, green, blue = map(int, rng.integers(50, 200) + rng.integers(-25, 26, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(red, green, blue))
    return _seen(image)


def street() -> Pixels:
    """Give a street: houses with windows, a fence, a car, a road with its line, a lamp."""
    image = Image.fromarray(gradient()).resize((WIDTH * FINE, HEIGHT * FINE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for left, top, wall in ((0, 120, "#8c5a46"), (280, 64, "#60646f"), (528, 152, "#aaa08c")):
        draw.rectangle((left, top, left + 248, 384), fill=wall, outline="#282624", width=4)
        for y in range(top + 32, 320, 64):
            for x in range(left + 28, left + 224, 56):
                draw.rectangle((x, y, x + 26, y + 38), fill="#3a4254", outline="#e1ded2", width=4)
    draw.rectangle((0, 388, image.width, image.height), fill="#48484c")
    draw.line((0, 456, image.width, 488), fill="#cdccc4", width=8)
    for x in range(8, image.width, 32):
        draw.line((x, 344, x, 388), fill="#78683c", width=5)
    draw.rounded_rectangle((336, 392, 528, 448), 16, fill="#aa1e22", outline="#1e1414", width=4)
    for x in (368, 480):
        draw.ellipse((x, 428, x + 32, 460), fill="#141416")
    draw.line((640, 80, 640, 416), fill="#1e2022", width=8)
    draw.ellipse((620, 56, 660, 96), fill="#fffadc")
    return _seen(image)


def night() -> Pixels:
    """Give the street in the dark, of a mean below 20."""
    return _levels(street() / 8 + 2)


def infrared() -> Pixels:
    """Give the street as an infrared camera sees it: three equal channels."""
    return np.asarray(Image.fromarray(street()).convert("L").convert("RGB"))


DRAWN: dict[str, Callable[[], Pixels]] = {
    scene.__name__: scene for scene in (gradient, dead_leaves, street, night, infrared)
}


@cache
def drawn(name: str) -> Pixels:
    """Draw a scene once."""
    return DRAWN[name]()


def tiled(scene: Pixels, height: int, width: int) -> Pixels:
    """Repeat a scene to any size."""
    rows, columns = (-(-length // side) for length, side in zip((height, width), scene.shape[:2], strict=True))
    return np.tile(scene, (rows, columns, 1))[:height, :width]


@dataclass(frozen=True)
class Noisy:
    """What a camera delivers, and what it would have delivered if levels below 0 and above 255 existed."""

    frame: Pixels
    unclipped: npt.NDArray[np.float64]


def with_noise(clean: Pixels, sigma: float) -> Noisy:
    """Add Gaussian noise, clipped and rounded; the same to all channels where the frame is grey."""
    grey = bool((clean == clean[..., :1]).all())
    noise = np.random.default_rng(0).normal(0, sigma, (*clean.shape[:2], 1 if grey else clean.shape[2]))
    unclipped = clean + noise
    return Noisy(_levels(unclipped), unclipped)


@dataclass(frozen=True)
class Overlay:
    """A frame with a text burnt in, and which pixels are wholly letter, wholly outline, or none of the text's."""

    frame: Pixels
    letters: npt.NDArray[np.bool_]
    outline: npt.NDArray[np.bool_]
    text: npt.NDArray[np.bool_]


def with_timestamp(frame: Pixels) -> Overlay:
    """Burn a timestamp in, white with a black outline, as a recorder does: without noise of its own."""
    font = ImageFont.load_default(size=17)
    inks = []
    for stroke in (0, 2):
        ink = Image.new("L", (frame.shape[1], frame.shape[0]))
        centre = (ink.width // 2, ink.height // 2)
        ImageDraw.Draw(ink).text(centre, TIMESTAMP, fill=255, font=font, anchor="mm", stroke_width=stroke)
        inks.append(np.asarray(ink)[..., None] / 255)
    letters, text = inks
    burnt = _levels(frame * (1 - text) + 255 * letters)
    return Overlay(burnt, letters[..., 0] > 0.9, (text[..., 0] == 1) & (letters[..., 0] == 0), text[..., 0] > 0)


def with_yellow_time(frame: Pixels) -> Overlay:
    """Burn the time in, yellow, small and without an outline."""
    ink = Image.new("L", (frame.shape[1], frame.shape[0]))
    ImageDraw.Draw(ink).text((4, 4), TIMESTAMP[-8:], fill=255, font=ImageFont.load_default(size=10))
    letters = np.asarray(ink)[..., None] / 255
    burnt = _levels(frame * (1 - letters) + np.array([255, 255, 0]) * letters)
    return Overlay(burnt, letters[..., 0] > 0.9, np.zeros(frame.shape[:2], np.bool_), letters[..., 0] > 0)


def _odd_frames() -> dict[str, Pixels]:
    rng, shape = np.random.default_rng(2), (48, 64, 3)
    squares = np.indices(shape[:2]).sum(axis=0)[..., None]
    hot = np.full(shape, 40, np.uint8)
    hot[30, 41] = 255
    red_hot = np.zeros(shape, np.uint8)
    red_hot[30, 41, 0] = 255
    return {
        "random bytes": rng.integers(0, 256, shape, np.uint8),
        "all 0": np.zeros(shape, np.uint8),
        "all 255": np.full(shape, 255, np.uint8),
        "checkerboard": np.repeat(squares % 2 * 255, 3, axis=2).astype(np.uint8),
        "large checkerboard": np.repeat(squares // 8 % 2 * 255, 3, axis=2).astype(np.uint8),
        "hot pixel": hot,
        "red pixel on black": red_hot,
        "one pixel": np.full((1, 1, 3), 77, np.uint8),
        "one row": rng.integers(0, 256, (1, 50, 3), np.uint8),
        "one column": rng.integers(0, 256, (50, 1, 3), np.uint8),
        "one channel": rng.integers(0, 256, (17, 33, 1), np.uint8),
    }


ODD = _odd_frames()
