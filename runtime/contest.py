"""Which of the devices on the same cores is the fastest for a model: asked of this machine, by running the model."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.devices import Device
from runtime.errors import ClearwatchError
from runtime.model import Model

ROUNDS = 7
PATIENCE_S = 1.0  # for all rounds of a contest: large models need fewer to tell apart
MARGIN = 0.95  # of the time of the first device: a rival has to be clearly faster


@dataclass(frozen=True)
class Trial:
    """How one device did."""

    device: str
    milliseconds: float | None = None
    """The least time for the golden input; None where the device was not timed."""
    refused: str = ""
    """Why it cannot be used for this model."""

    def __str__(self) -> str:
        if self.milliseconds is None:
            return f"{self.device} {self.refused or 'untimed'}"
        return f"{self.device} {self.milliseconds:.2f} ms"


def open_fastest(folder: Path, device: Device) -> tuple[Model, tuple[Trial, ...]]:
    """Open a model on the device, or on the one of its rivals that is clearly faster and equally right.

    Right is what reproduces the golden outputs. Without rivals nothing is timed. Raises what Model.open raises for
    the device itself; a rival that fails is passed over.
    """
    models, refused = [Model.open(folder, device)], []
    for rival in device.rivals:
        try:
            models.append(Model.open(folder, rival))
        except ClearwatchError as error:
            refused.append(Trial(rival.name, refused=str(error)))
    if len(models) == 1:
        return models[0], (Trial(device.name), *refused)
    times = _least_seconds(models)
    handicapped = [seconds * (MARGIN if index == 0 else 1) for index, seconds in enumerate(times)]
    timed = (Trial(model.device.name, 1000 * seconds) for model, seconds in zip(models, times, strict=True))
    return models[handicapped.index(min(handicapped))], (*timed, *refused)


def _least_seconds(models: list[Model]) -> list[float]:
    """Time the models in turns, so that what else the machine does meets them alike."""
    least = [float("inf")] * len(models)
    for _ in _rounds():
        for index, model in enumerate(models):
            started = time.perf_counter()
            model.rehearse()
            least[index] = min(least[index], time.perf_counter() - started)
    return least


def _rounds() -> Iterator[int]:
    give_up = time.perf_counter() + PATIENCE_S
    for round_ in range(ROUNDS):
        if round_ and time.perf_counter() > give_up:
            return
        yield round_
