"""Still images: detectors that learn from normal images alone, on drawn inspection sets with drawn defects.

`make bench-stills DATA=...`; MNIST and UCSD Ped2 are used where DATA has them, and left out where it has not.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.inspection.detectors import Answer, Detector, detectors
from benchmarks.inspection.sets import DEVELOPMENT, HELD_OUT, InspectionSet, Sample, digits, footage, write
from benchmarks.report import Arguments, Report, parser
from training.card import Row
from training.evaluate import auroc

SEED = 5
MAP_SIDE = 64  # pixels a side that maps and masks are compared at
PROTOCOL = "half of the test images are damaged; a map's score is the mean of its worst 3 per mille; seed 5"


@dataclass(frozen=True)
class Options(Arguments):
    """What this benchmark takes besides."""

    train: int
    test: int
    only: list[str] | None
    convolutional_steps: int
    decoder_steps: int


def main() -> None:
    """Print one table for each set and one of means, those of the held-out sets apart."""
    options = _options()
    report = Report(PROTOCOL)
    found: dict[str, list[Row]] = {}
    for title, sets in (("looked at", _development(options)), ("held out", _held_out(options))):
        for inspection in sets:
            rows = [
                measure(detector, inspection)
                for detector in detectors(options.convolutional_steps, options.decoder_steps)
            ]
            report.add(f"{inspection.name} ({title})", rows)
            for row in rows:
                found.setdefault(f"{title}: {row['']}", []).append(row)
    report.add("Means over the sets", [_mean(name, rows) for name, rows in found.items()])
    report.write(options.json)


def _options() -> Options:
    options = parser(__doc__)
    options.add_argument("--train", type=int, default=300, metavar="N", help="images to learn from (default: 300)")
    options.add_argument("--test", type=int, default=100, metavar="N", help="normal and as many damaged (default: 100)")
    options.add_argument("--only", action="append", metavar="SET", help="only this set; may be repeated")
    options.add_argument("--convolutional-steps", type=int, default=1000, metavar="N",
                         help="of the convolutional autoencoder; 0 leaves it out (default: 1000)")  # fmt: skip
    options.add_argument("--decoder-steps", type=int, default=100, metavar="N",
                         help="of the decoder of stills, which no score depends on (default: 100)")  # fmt: skip
    return Options(**vars(options.parse_args()))


def _development(options: Options) -> Iterator[InspectionSet]:
    for family in DEVELOPMENT:
        if options.only is None or family.name in options.only:
            yield family.draw(options.train, options.test, SEED)


def _held_out(options: Options) -> Iterator[InspectionSet]:
    families = [*HELD_OUT, *([digits(options.data)] if (options.data / "mnist").is_dir() else [])]
    for family in families:
        if options.only is None or family.name in options.only:
            yield family.draw(options.train, options.test, SEED)
    if (options.data / "ped2").is_dir() and (options.only is None or "walkway" in options.only):
        yield footage(options.data, options.train, options.test)


def measure(detector: Detector, inspection: InspectionSet) -> Row:
    """Train on the set, score its test images; return AUROCs in %, minutes and milliseconds."""
    with tempfile.TemporaryDirectory() as place:
        folder, workshop = Path(place) / "normal", Path(place) / "workshop"
        workshop.mkdir()
        write(inspection.train, folder)
        start = time.perf_counter()
        detector.fit(folder, workshop)
        minutes = (time.perf_counter() - start) / 60
        answers = [detector.answer(np.repeat(sample.pixels, 3, axis=2)) for sample in inspection.test]
    labels = np.array([sample.anomalous for sample in inspection.test])
    return {
        "": detector.name,
        "image AUROC (%)": 100 * auroc(labels, np.array([answer.score for answer in answers])),
        "pixel AUROC (%)": 100 * _pixel_auroc(inspection.test, answers),
        "ms an image": 1000 * float(np.median([answer.seconds for answer in answers])),
        "training (min)": minutes,
    }


def _pixel_auroc(samples: Sequence[Sample], answers: Sequence[Answer]) -> float:
    side = (MAP_SIDE, MAP_SIDE)
    masks = [cv2.resize(s.mask.astype(np.float32), side, interpolation=cv2.INTER_AREA) > 0 for s in samples]
    maps = [cv2.resize(answer.anomaly_map, side, interpolation=cv2.INTER_AREA) for answer in answers]
    return auroc(np.stack(masks).ravel(), np.stack(maps).astype(np.float32).ravel())


def _mean(name: str, rows: Sequence[Row]) -> Row:
    figures = [key for key in rows[0] if key]
    return {"": name} | {key: float(np.mean([float(row[key]) for row in rows])) for key in figures}


if __name__ == "__main__":
    main()
