"""What a part of the lecture found, kept as Markdown with its pictures, and the page that is made of all parts."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.musts import Must
from benchmarks.report import Report
from runtime.images import ImageFormat, Pixels, encode
from training.card import Row, markdown
from training.pictures import mosaic

SECTION, FIGURES = "section.md", "figures.json"
QUICK_MARK = "**Quick settings**: they show that the part runs and what it measures. These are not its figures."
HEAD = """\
# The lecture, with receipts

What theory says of each autoencoder, measured. `make lecture` trains, measures and writes this page; it goes on where
it was interrupted, and `python -m benchmarks.lecture --parts NAME` does one part. `make lecture QUICK=1` is a look in
minutes, into `runs/lecture/quick`. A part whose full figures are not there yet is shown with its quick ones, and says
so.

MNIST: 57,000 of the training images to learn from, 3,000 to choose the checkpoint, all 10,000 test images to measure
on; pixels in 0..1. UCSD Ped2: normal frames at 96 x 64, a quarter of the clips held out to measure on. One seed, 0.
CPU minutes are those of one core, as the system counts them.

How long: a step of 500 images with Muon takes some 40 ms of processor time for the VAE 784-200-200-50, and one of 100
with Adam 36 ms for the deep autoencoder 784-1000-500-250-30, on one AVX-512 core that other programs kept busy too.
From that the full page is about twelve hours of such a core: an estimate. Each part says what it took.
"""


class Section:
    """One part: text, tables and pictures in the order in which they are added."""

    def __init__(self, title: str, folder: Path, note: str) -> None:
        """`note` says under which settings the figures were made."""
        self.folder = folder
        self.report = Report(note)
        self.musts: list[Must] = []
        self._blocks = [f"## {title}", note]
        folder.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._blocks.append(text)

    def table(self, title: str, rows: Sequence[Row]) -> None:
        """Add a table, and print it."""
        self.report.add(title, rows)
        self._blocks += [f"{title}:", markdown(rows)]

    def must(self, musts: Sequence[Must]) -> None:
        """Add what has to be reached."""
        self.musts += musts
        self.table("What it must reach", [must.row for must in musts])

    def plot(self, name: str, caption: str, figure: Figure) -> None:
        """Add a figure."""
        figure.savefig(self.folder / f"{name}.png", dpi=90)
        self._show(name, caption)

    def pictures(self, name: str, caption: str, rows: Sequence[Sequence[Pixels]]) -> None:
        """Add rows of pictures of one size."""
        (self.folder / f"{name}.png").write_bytes(encode(mosaic(rows), ImageFormat.PNG))
        self._show(name, caption)

    def _show(self, name: str, caption: str) -> None:
        self._blocks += [f"![{caption}](images/lecture-{self.folder.name}-{name}.png)", f"*{caption}*"]

    def write(self) -> None:
        """Keep it: whole, or not at all."""
        self.report.write(self.folder / FIGURES)
        draft = self.folder / f"{SECTION}.draft"
        draft.write_text("\n\n".join(self._blocks) + "\n", encoding="utf-8")
        draft.replace(self.folder / SECTION)


def write_page(titles: Mapping[str, str], folders: Sequence[Path], page: Path) -> None:
    """Write the page and its images: each part, by its title, from the first folder that has it.

    What the page says of a part already stays where no folder has the part, or where only quick figures would replace
    full ones: runs are not part of a clone, the page is.
    """
    images = page.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    said = _said(page)
    sections = []
    for part, title in titles.items():
        before = said.get(title)
        found = next((folder / part for folder in folders if (folder / part / SECTION).is_file()), None)
        text = None if found is None else (found / SECTION).read_text(encoding="utf-8")
        if found is None or text is None or (before is not None and QUICK_MARK in text and QUICK_MARK not in before):
            sections += [] if before is None else [before]
            continue
        sections.append(text)
        for picture in sorted(found.glob("*.png")):
            shutil.copyfile(picture, images / f"lecture-{part}-{picture.name}")
    page.write_text("\n".join([HEAD, *sections]), encoding="utf-8")


def _said(page: Path) -> dict[str, str]:
    """Return what the page says of each part, by its title."""
    if not page.is_file():
        return {}
    _, *blocks = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {block.partition("\n")[0]: f"## {block.strip()}\n" for block in blocks}
