"""Train, measure and write the lecture's page: `make lecture`, `python -m benchmarks.lecture --parts bottleneck`.

The full figures take a night on two cores; `--quick` takes minutes and writes to runs/lecture/quick. What is trained is
kept: a run that was interrupted goes on, and a part is measured again from its kept models. Some of those behind the
full figures are shipped, in models/lecture, and are measured without training; `--ship` writes them.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lecture.bottleneck import bottleneck
from benchmarks.lecture.compare import compare
from benchmarks.lecture.contractive import contractive
from benchmarks.lecture.course import Course
from benchmarks.lecture.denoising import denoising
from benchmarks.lecture.gaussian import gaussian
from benchmarks.lecture.neighbours import neighbours
from benchmarks.lecture.page import QUICK_MARK, Section, write_page
from benchmarks.lecture.variational import variational

PARTS: dict[str, tuple[str, Callable[[Course, Section], None]]] = {
    "bottleneck": ("Compression and bottleneck", bottleneck),
    "contractive": ("Contraction", contractive),
    "denoising": ("Denoising as feature extraction", denoising),
    "variational": ("The variational autoencoder", variational),
    "gaussian": ("The multivariate Gaussian", gaussian),
    "compare": ("Which kind for my camera?", compare),
    "neighbours": ("The neighbours: PixelCNN and GAN", neighbours),
}


@dataclass(frozen=True)
class Options:
    """What the lecture takes."""

    data: Path
    parts: list[str]
    quick: bool
    ship: bool
    runs: Path
    docs: Path


def main() -> None:
    """Do the parts, write the page, and exit with 1 where full figures miss what they must reach."""
    options = _options()
    folder = options.runs / ("quick" if options.quick else "full")
    course = Course(options.data, folder, options.quick, ships=options.ship)
    sections = [_do(part, course) for part in options.parts]
    titles = {part: title for part, (title, _) in PARTS.items()}
    if options.quick:
        write_page(titles, [course.folder], course.folder / "lecture.md")
    else:
        write_page(titles, [course.folder, options.runs / "quick"], options.docs / "lecture.md")
    missed = [f"missed: {must}" for section in sections for must in section.musts if not must.kept]
    if missed and not options.quick:
        sys.exit("\n".join(missed))


def _options() -> Options:
    options = argparse.ArgumentParser(
        "python -m benchmarks.lecture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=Path("data"), help="where the data sets are (docs/data.md)")
    options.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS),
                         help="only these; none: write the page from what is there")  # fmt: skip
    options.add_argument("--quick", action="store_true", help="small settings, for a look: minutes")
    options.add_argument(
        "--ship", action="store_true", help="also write the models that are shipped, to models/lecture"
    )
    options.add_argument("--runs", type=Path, default=Path("runs/lecture"), metavar="DIR",
                         help="where models and figures are kept (default: runs/lecture)")  # fmt: skip
    options.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR",
                         help="where the page of the full figures goes (default: docs)")  # fmt: skip
    return Options(**vars(options.parse_args()))


def _do(part: str, course: Course) -> Section:
    title, study = PARTS[part]
    print(f"\n## {title}", flush=True)
    command = f"python -m benchmarks.lecture --parts {part}"
    note = f"{QUICK_MARK} `{command} --quick`" if course.quick else f"`{command}`"
    section = Section(title, course.folder / part, note)
    course.minutes.clear()
    start, before = time.process_time(), course.cpu_seconds
    study(course, section)
    measuring = time.process_time() - start - (course.cpu_seconds - before)
    section.say(
        f"Training its models took {sum(course.minutes.values()):.1f} CPU minutes, in however many runs; measuring "
        f"took {measuring / 60:.1f} in this one."
    )
    section.write()
    return section


if __name__ == "__main__":
    main()
