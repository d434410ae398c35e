"""The shipped models, and the checks that their recipes name."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Report
from runtime.devices import DeviceChoice, select_device
from runtime.manifest import Task, read_manifest
from runtime.model import Model
from training.card import tables
from training.config import Check, parse_recipe
from training.evaluate import Evaluation, measure

MODELS = Path("models")


def able_to(task: Task) -> Iterator[tuple[Path, Model]]:
    """Yield every folder whose model can do the task, with the model open on the best device there is."""
    for path in sorted(MODELS.glob("*/manifest.json")):
        if task in read_manifest(path.parent).tasks:
            yield path.parent, Model.open(path.parent, select_device(DeviceChoice.AUTO))


def run_checks(report: Report, folder: Path, model: Model, kind: type[Check], data: Path) -> None:
    """Add the tables of every check of that kind in the model's recipe; plots are thrown away."""
    recipe = parse_recipe(model.manifest.provenance.config, str(folder))
    with tempfile.TemporaryDirectory() as plots:
        evaluation = Evaluation(model, recipe, data, Path(plots))
        for check in (check for check in recipe.evaluate if isinstance(check, kind)):
            for title, rows in tables(measure(check, evaluation)).items():
                report.add(f"{folder.name} on {title}", rows)
