"""Every model that scores, on its labelled test clips, beside what learns nothing: AUROC with intervals, alarms.

`make bench-anomaly DATA=...`
"""

import tempfile
from pathlib import Path

from benchmarks.report import Report, arguments
from runtime.devices import DeviceChoice, select_device
from runtime.manifest import Task, read_manifest
from runtime.model import Model
from training.card import tables
from training.config import AnomalyCheck, parse_recipe
from training.evaluate import Evaluation, measure

MODELS = Path("models")


def main() -> None:
    """Print one group of tables for each model."""
    options = arguments(__doc__)
    report = Report("RAW: one threshold for all clips; MINMAX: scores rescaled a clip; seed 0")
    folders = [path.parent for path in sorted(MODELS.glob("*/manifest.json"))]
    for folder in (folder for folder in folders if Task.SCORE in read_manifest(folder).tasks):
        model = Model.open(folder, select_device(DeviceChoice.AUTO))
        recipe = parse_recipe(model.manifest.provenance.config, str(folder))
        with tempfile.TemporaryDirectory() as plots:
            evaluation = Evaluation(model, recipe, options.data, Path(plots))
            for check in (check for check in recipe.evaluate if isinstance(check, AnomalyCheck)):
                for title, rows in tables(measure(check, evaluation)).items():
                    report.add(f"{folder.name} on {title}", rows)
    report.write(options.json)


if __name__ == "__main__":
    main()
