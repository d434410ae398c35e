"""Every model that scores, on UCSD Ped2, beside what learns nothing: AUROC, alarms, standing things, noise, cost.

`make bench-anomaly DATA=...` exits with 1 where a must is missed. DATA is the folder `ped2` or the one that holds it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.anomalies.alarms import alarms
from benchmarks.anomalies.bench import Bench, Section
from benchmarks.anomalies.curves import curves
from benchmarks.anomalies.detection import detection
from benchmarks.anomalies.footage import find_ped2, read_clips, read_test_clips
from benchmarks.anomalies.noise import noise
from benchmarks.anomalies.scorer import ShippedScorer, Statistic
from benchmarks.anomalies.speed import speed
from benchmarks.anomalies.standing import standing
from benchmarks.musts import judge
from benchmarks.report import Arguments, Report, parser
from benchmarks.shipped import able_to, open_model
from runtime.manifest import Task
from training.baselines import MOTION_STATISTICS
from training.evaluate import MEAN_FRAME_STRIDE

PROTOCOL = (
    "RAW: one causal threshold for all clips; MINMAX: scores rescaled a clip, which no live service can do; a model of "
    "clips gives the frames before its first full clip that clip's score, as the statistics of motion do; intervals by "
    "bootstrap over clips; 10 frames a second; seed 0"
)
SECTIONS: dict[str, Section] = {
    section.__name__: section for section in (detection, alarms, speed, curves, standing, noise)
}
DENOISER = "denoiser-fast"


@dataclass(frozen=True)
class Options(Arguments):
    """What this benchmark takes besides."""

    only: list[str] | None
    pictures: Path | None


def main() -> None:
    """Print every table, the musts last."""
    options = _options()
    bench = _bench(options)
    musts = [must for name in options.only or SECTIONS for must in SECTIONS[name](bench)]
    judge(bench.report, musts, options.json)


def _options() -> Options:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=list(SECTIONS), help="only these sections")
    options.add_argument(
        "--pictures", type=Path, metavar="DIR", help="also draw the scores clip by clip, to this folder"
    )
    return Options(**vars(options.parse_args()))


def _bench(options: Options) -> Bench:
    ped2 = find_ped2(options.data)
    normal = read_clips(ped2, "train", MEAN_FRAME_STRIDE)
    mean = np.asarray(np.mean(normal.batch(range(len(normal))), axis=(0, 3)))
    models = [ShippedScorer(*opened) for opened in able_to(Task.SCORE)]
    statistics = [Statistic(statistic, mean) for statistic in MOTION_STATISTICS]
    footage = read_test_clips(ped2)
    return Bench([*statistics, *models], open_model(DENOISER), ped2, footage, options.pictures, Report(PROTOCOL))


if __name__ == "__main__":
    main()
