"""Throughput and memory as models, cameras and pixels grow in number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.load.bench import Bench, Visit, median
from benchmarks.load.contenders import ENGINES, ours, raw
from benchmarks.load.frames import jpeg
from benchmarks.load.models import write_copies
from benchmarks.load.servers import Server, Upload
from benchmarks.musts import Must
from benchmarks.shipped import MODELS
from runtime.images import Size

CONNECTIONS = 8
NUMBERS_OF_MODELS = (1, 2, 4, 8, 16)
NUMBERS_OF_CAMERAS = (1, 10, 50, 100, 200)
FRAMES = {
    "256 x 256": Size(256, 256),
    "640 x 480": Size(480, 640),
    "1280 x 720": Size(720, 1280),
    "1920 x 1080": Size(1080, 1920),
    "3840 x 2160": Size(2160, 3840),
}
CLIP_MODEL = "walkway"  # shipped; looks at clips
NUMBER = b"0000000000"  # what requests.lua counts in: to the service no frame comes twice


@dataclass(frozen=True)
class Point:
    """Our service with so many of what grows."""

    name: str
    server: Server


def models(bench: Bench) -> list[Must]:
    """Serve copies of the autoencoder, asked in turns."""
    points = []
    for count in NUMBERS_OF_MODELS:
        folder = bench.workshop / f"copies-{count}"
        uploads = [
            raw(bench.frame, f"/v1/score?model={name}") for name in write_copies(bench.autoencoder, folder, count)
        ]
        points.append(_point(bench, str(count), folder, uploads))
    _report(bench, "models", points)
    return []


def cameras(bench: Bench) -> list[Must]:
    """Serve cameras, each with its clip."""
    folder = bench.workshop / "clips"
    folder.mkdir(exist_ok=True)
    (folder / CLIP_MODEL).symlink_to((MODELS / CLIP_MODEL).absolute())
    frame = jpeg(240, 360) + NUMBER
    points = []
    for count in NUMBERS_OF_CAMERAS:
        uploads = [raw(frame, f"/v1/cameras/{index}/frames") for index in range(count)]
        points.append(_point(bench, str(count), folder, uploads))
    _report(bench, "cameras", points)
    return []


def pixels(bench: Bench) -> list[Must]:
    """Send frames of every size to a model that looks at 256 x 256."""
    folder = bench.autoencoder.parent
    points = [_point(bench, name, folder, [raw(jpeg(*size), "/v1/score")]) for name, size in FRAMES.items()]
    _report(bench, "pixels", points)
    return []


def _point(bench: Bench, name: str, folder: Path, uploads: Sequence[Upload]) -> Point:
    return Point(name, ours(folder, ENGINES[0].device, bench.workers, uploads))


def _report(bench: Bench, what: str, points: Sequence[Point]) -> None:
    visits: dict[str, list[Visit]] = {point.name: [] for point in points}
    for point in bench.turns(what, points):
        visits[point.name].append(bench.visit(point.server, [CONNECTIONS]))
    rates = {name: median(visit.loads[CONNECTIONS].rate for visit in found) for name, found in visits.items()}
    memory = {name: max(visit.memory_mb for visit in found) for name, found in visits.items()}
    bench.report.add(
        f"Growth: {what}, {CONNECTIONS} connections",
        [
            {
                what: name,
                "images/s": rates[name],
                "CPU ms an image": median(visit.cpu_ms for visit in found),
                "p99 ms": median(visit.loads[CONNECTIONS].p99_ms for visit in found),
                "MB": memory[name],
                "failed": sum(visit.loads[CONNECTIONS].failed for visit in found),
            }
            for name, found in visits.items()
        ],
    )
    if bench.pictures is not None:
        bench.pictures.mkdir(parents=True, exist_ok=True)
        _draw(what, {"images/s": rates, "MB": memory}, bench.pictures / f"growth-{what}.png")


def _draw(what: str, curves: Mapping[str, Mapping[str, float]], path: Path) -> None:
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, (title, curve) in zip(np.ravel(figure.subplots(1, len(curves))), curves.items(), strict=True):
        axes.plot(list(curve), list(curve.values()), marker="o")
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize="small")
        axes.set_xlabel(what)
        axes.tick_params(axis="x", labelsize="small")
    figure.savefig(path, dpi=80)
