"""Every model that scores, on its labelled test clips, beside what learns nothing: AUROC with intervals, alarms.

`make bench-anomaly DATA=...`
"""

from benchmarks.report import Report, arguments
from benchmarks.shipped import able_to, run_checks
from runtime.manifest import Task
from training.config import AnomalyCheck


def main() -> None:
    """Print one group of tables for each model."""
    options = arguments(__doc__)
    report = Report("RAW: one threshold for all clips; MINMAX: scores rescaled a clip; seed 0")
    for folder, model in able_to(Task.SCORE):
        run_checks(report, folder, model, AnomalyCheck, options.data)
    report.write(options.json)


if __name__ == "__main__":
    main()
