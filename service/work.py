"""What the scheduler moves: a frame's way through a model, its stages, and how long each took."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Generic, TypeVar

import numpy as np

from runtime.images import Pixels
from runtime.model import Model, Outputs

R = TypeVar("R")


class Stage(StrEnum):
    """Where the time of a request goes."""

    QUEUE = "queue"
    DECODE = "decode"
    INFERENCE = "inference"
    ENCODE = "encode"


@dataclass(slots=True)
class Timing:
    """Seconds that one job spent in each stage."""

    queue: float = 0.0
    decode: float = 0.0
    inference: float = 0.0
    encode: float = 0.0


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """A finished job."""

    value: R
    timing: Timing


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model takes for one frame, without the batch axis: uint8 [(time,) h, w, c]; level on 0..255."""

    frames: Pixels
    noise_level: float | None = None

    def fits(self, other: "Inputs") -> bool:
        """Tell whether both may go into one batch."""
        return self.frames.shape == other.frames.shape and (self.noise_level is None) == (other.noise_level is None)


class NeedsRoom(Exception):
    """A frame of so many pixels is to be decoded when there is memory for it: no failure, but something to wait for.

    `grant` is to be called before it is tried again.
    """

    def __init__(self, pixels: int, grant: Callable[[], None]) -> None:
        super().__init__()
        self.pixels = pixels
        self.grant = grant


class Work(ABC, Generic[R]):
    """One frame (or clip) through a model. Both methods are called in a worker thread, never at the same time."""

    wants: ClassVar[frozenset[str]]
    """Outputs of the model that `finish` looks at."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @abstractmethod
    def prepare(self) -> Inputs:
        """Decode and scale."""

    @abstractmethod
    def finish(self, outputs: Outputs) -> R:
        """Make the result of what the model answered for this frame."""


def run_batch(model: Model, batch: Sequence[Inputs], wanted: frozenset[str], *, alone: bool = False) -> Outputs:
    """Run frames of one shape through the model together, `alone` with every core, for the outputs that are wanted."""
    # One frame is the common case, and a view of it costs no copy.
    frames = batch[0].frames[None] if len(batch) == 1 else np.stack([inputs.frames for inputs in batch])
    levels = [inputs.noise_level for inputs in batch if inputs.noise_level is not None]
    return model.run(frames, np.asarray(levels, np.float32) if levels else None, alone=alone, wanted=wanted)
