"""Cut a large frame into overlapping tiles whose results, put together, equal the result for the whole frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtime.images import Pixels
from runtime.manifest import FrameInput


@dataclass(frozen=True)
class Span:
    """Along one axis: the tile reads [start, stop) and owns [own_start, own_stop) of the frame."""

    start: int
    stop: int
    own_start: int
    own_stop: int

    @property
    def kept(self) -> slice:
        """The owned part, in the tile's coordinates."""
        return slice(self.own_start - self.start, self.own_stop - self.start)

    @property
    def owned(self) -> slice:
        """The owned part, in the frame's coordinates."""
        return slice(self.own_start, self.own_stop)


@dataclass(frozen=True)
class Tile:
    """A rectangle of a frame."""

    rows: Span
    columns: Span

    def cut(self, frame: Pixels) -> Pixels:
        """Return what the tile reads of a [h, w, c] frame."""
        return frame[self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]

    def paste(self, result: Pixels, frame: Pixels) -> None:
        """Write what the tile owns of its result into the [h, w, c] frame."""
        frame[self.rows.owned, self.columns.owned] = result[self.rows.kept, self.columns.kept]


def _spans(length: int, core: int, overlap: int) -> Iterator[Span]:
    for own_start in range(0, length, core):
        own_stop = min(own_start + core, length)
        yield Span(max(0, own_start - overlap), min(length, own_stop + overlap), own_start, own_stop)


def tiles(height: int, width: int, geometry: FrameInput, max_pixels: int) -> list[Tile]:
    """Cover a frame with tiles of about `max_pixels`, overlap included; one tile where the frame fits whole.

    An overlap of the receptive field makes the seams exact, so the core never shrinks below it.
    """
    if height * width <= max_pixels:
        whole = Tile(Span(0, height, 0, height), Span(0, width, 0, width))
        return [whole]
    # Tiles begin and end on the down-sampling grid of the whole frame: only the frame's own edge is ever padded.
    overlap = _up_to(geometry.receptive_field, geometry.stride)
    core = _up_to(max(int(np.sqrt(max_pixels)) - 2 * overlap, overlap, 1), geometry.stride)
    return [Tile(rows, columns) for rows in _spans(height, core, overlap) for columns in _spans(width, core, overlap)]


def _up_to(length: int, stride: int) -> int:
    return length + -length % stride
