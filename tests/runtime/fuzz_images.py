"""Coverage-guided fuzzing of the decoder, by Atheris: any bytes are a picture or an ImageError, soon and cheaply.

`make fuzz`, a minute; `make fuzz ARGS="-max_total_time=3600"`. It begins with small files of every format and goes on
from those that reach new code, in our readers and in Pillow's. What it finds lies in runs/fuzz, and belongs into
tests/runtime/crashers.
"""

import io
import sys
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["PIL", "runtime"]):
    from PIL import Image

    from runtime.errors import ImageError
    from runtime.images import Limits, Size, decode

CORPUS = Path("runs/fuzz")
LIMITS = Limits(max_bytes=2**20, max_pixels=2**20)
FIT = Size(32, 48)
SEEDS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("RGB", "JPEG", {}),
    ("L", "JPEG", {"progressive": True}),
    ("CMYK", "JPEG", {}),
    ("RGB", "PNG", {}),
    ("P", "PNG", {"transparency": 3}),
    ("LA", "PNG", {}),
    ("1", "PNG", {"interlace": True}),
    ("RGB", "WEBP", {"lossless": True}),
    ("RGBA", "WEBP", {}),
    ("RGB", "BMP", {}),
    ("P", "BMP", {}),
)


def decode_any(data: bytes) -> None:
    """Decode in full and to a size, as the denoiser and a scorer do."""
    for fit in (None, FIT):
        try:
            picture = decode(data, limits=LIMITS, fit=fit)
        except ImageError:
            continue
        height, width, _ = picture.pixels.shape  # not what the header says: it may lie
        assert picture.pixels.dtype == np.uint8
        assert (height, width) == (fit or (picture.height, picture.width))
        assert height * width <= LIMITS.max_pixels


def _write_seeds() -> None:
    CORPUS.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    for number, (mode, form, options) in enumerate(SEEDS):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, form, **({} if form == "BMP" else {"exif": exif}), **options)
        (CORPUS / f"seed-{number}").write_bytes(buffer.getvalue())


if __name__ == "__main__":
    _write_seeds()
    stated = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    limits = [
        "-max_total_time=60",
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-max_len=65536",
        f"-artifact_prefix={CORPUS}/",
    ]
    atheris.Setup([sys.argv[0], *limits, *stated, str(CORPUS)], decode_any)
    atheris.Fuzz()
