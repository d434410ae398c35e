"""Clips: the last frames of a camera, as a model of clips looks at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Window:
    """The `time` frames up to one. Of fewer, but as many as are `needed`, the first is repeated before them.

    Nothing moves in what is repeated, and models take no frame that is repeated for one in which something stays.
    """

    time: int
    needed: int

    @classmethod
    def whole(cls, time: int) -> "Window":
        """All frames are needed."""
        return cls(time, time)

    def begun(self, frames: Sequence[Frame]) -> list[Frame]:
        """Return the last `time` of one or more frames, with the first repeated where there are fewer."""
        return [frames[0]] * (self.time - len(frames)) + list(frames)[-self.time :]


STILL = Window.whole(1)
