"""What the command line asks for when it asks for a denoiser of one camera."""

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    footage: Path
    out: Path
    model: Path
    steps: int
    seed: int
    every: int
    force: bool

    @property
    def source(self) -> str:
        """What the footage is called."""
        return self.footage.resolve().name

    @property
    def base(self) -> str:
        """What the denoiser to start from is called."""
        return self.model.resolve().name

    @property
    def command(self) -> str:
        """The command line that asks for the same again."""
        words = ["python", "-m", "training", "denoise-camera", str(self.footage), "--out", str(self.out),
                 "--model", str(self.model), "--steps", str(self.steps), "--seed", str(self.seed),
                 "--every", str(self.every)]  # fmt: skip
        return shlex.join(words + ["--force"] * self.force)
