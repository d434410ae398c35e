"""What the command line asks for when it asks which kind suits a camera."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from training.errors import RunError


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    frames: Path
    """A folder (subfolders are clips), a video or ARCHIVE.npz:KEY."""

    out: Path
    """Where runs, models and the table are kept."""

    kinds: tuple[str, ...] = ()
    """Only these; none: every kind there is."""

    false_alarm_rate: float = 0.01
    """Share of the normal frames that may alarm."""

    minutes: float = 2.0
    """To train each kind for, about; unless `steps` says how long."""

    steps: int | None = None
    every: int = 1
    """Read every n-th frame of each clip."""

    pixels: int = 6144
    """About so many a frame, in the proportions of the first one."""

    seed: int = 0

    def __post_init__(self) -> None:
        """Raise RunError for what is no rate and no time."""
        if not 0 < self.false_alarm_rate < 1:
            raise RunError(
                f"--false-alarm-rate {self.false_alarm_rate:g}: give a share of the frames above 0 and below 1"
            )
        if self.minutes <= 0:
            raise RunError(f"--minutes {self.minutes:g}: give a time above 0")

    @property
    def source(self) -> str:
        """What the frames are called."""
        return self.frames.resolve().name

    @property
    def command(self) -> str:
        """The command line that asks for the same again."""
        budget = ["--minutes", f"{self.minutes:g}"] if self.steps is None else ["--steps", str(self.steps)]
        words = ["python", "-m", "training", "compare", str(self.frames), "--out", str(self.out), *budget,
                 "--false-alarm-rate", f"{self.false_alarm_rate:g}", "--every", str(self.every),
                 "--pixels", str(self.pixels), "--seed", str(self.seed)]  # fmt: skip
        return shlex.join(words + (["--kinds", *self.kinds] if self.kinds else []))
