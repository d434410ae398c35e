"""The shipped models."""

from collections.abc import Iterator
from pathlib import Path

from runtime.devices import DeviceChoice, select_device
from runtime.manifest import Task, read_manifest
from runtime.model import Model

MODELS = Path("models")


def able_to(task: Task) -> Iterator[tuple[Path, Model]]:
    """Yield every folder whose model can do the task, with the model open on the best device there is."""
    for path in sorted(MODELS.glob("*/manifest.json")):
        if task in read_manifest(path.parent).tasks:
            yield path.parent, Model.open(path.parent, select_device(DeviceChoice.AUTO))


def open_model(name: str) -> Model:
    """Open one of them by name."""
    return Model.open(MODELS / name, select_device(DeviceChoice.AUTO))
