"""JPEGs as cameras send them, by TurboJPEG: the pixels are those of Pillow, in four fifths of the time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg

from runtime.headers import jpeg_frame

COLOUR, GREY = 3, 1  # components
FACTORS = (8, 4, 2)


@dataclass(frozen=True)
class PlainJpeg:
    """A JPEG that lies as it was taken, in grey or in the usual colours."""

    data: bytes
    height: int
    width: int
    grey: bool

    @classmethod
    def find(cls, data: bytes) -> "PlainJpeg | None":
        """Look at the header; None for what needs more care: EXIF, that may turn it, other colours, or damage.

        TurboJPEG would tell too, but gives the GIL away for that, and to get it back takes longer than to look.
        """
        frame = jpeg_frame(data)
        if frame is None or not frame.plain or frame.components not in {COLOUR, GREY}:
            return None
        return cls(data, frame.height, frame.width, frame.components == GREY)

    def decode(self, channels: int, at_least: tuple[int, int] | None) -> npt.NDArray[np.uint8] | None:
        """Return [h, w, channels], reduced by 2, 4 or 8 to `at_least` that height and width; None if it is damaged."""
        height, width = self.height, self.width
        if at_least is not None:
            spare = min(height // at_least[0], width // at_least[1])
            factor = next((factor for factor in FACTORS if factor <= spare), 1)
            height, width = -(-height // factor), -(-width // factor)
        colours = "GRAY" if channels == 1 else "RGB"
        # Room for what the header was understood to say and no more, should TurboJPEG ever understand another size.
        room = np.empty((height, width, channels), np.uint8)
        try:
            pixels = simplejpeg.decode_jpeg(
                self.data, colours, min_height=height, min_width=width, buffer=room, strict=True
            )
        except ValueError:
            return None
        return np.asarray(pixels, np.uint8) if pixels.shape == room.shape else None
