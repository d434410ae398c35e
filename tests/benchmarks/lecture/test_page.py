"""The page: full figures where there are some, quick ones marked, nothing invented."""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.lecture.page import QUICK_MARK, Section, write_page
from benchmarks.musts import Must, Side

TITLES = {"one": "One", "two": "Two", "three": "Three"}


def make(folder: Path, part: str, note: str) -> Section:
    section = Section(part.capitalize(), folder / part, note)
    section.say("The formula.")
    section.table("Errors", [{"": "plain", "error": 12.345678}])
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    section.plot("curve", "A curve", figure)
    section.pictures("digits", "Digits", [[np.zeros((8, 8, 1), np.uint8)]])
    section.must([Must("error", Side.AT_MOST, 3, {"plain": 12.3})])
    section.write()
    return section


def test_a_section_keeps_text_tables_pictures_and_figures(tmp_path: Path) -> None:
    section = make(tmp_path, "bottleneck", "how")
    text = (tmp_path / "bottleneck" / "section.md").read_text()
    curve, digits = (f"![{caption}](images/lecture-bottleneck-" for caption in ("A curve", "Digits"))
    order = ["## Bottleneck", "how", "The formula.", "| plain | 12.35 |", curve, digits, "| error <= 3 |"]
    assert [text.index(piece) for piece in order] == sorted(text.index(piece) for piece in order)
    assert not section.musts[0].kept
    figures = json.loads((tmp_path / "bottleneck" / "figures.json").read_text())
    assert figures["tables"]["Errors"][0]["error"] == 12.345678
    assert figures["environment"]["libraries"]["torch"]


def test_the_page_prefers_full_figures_and_says_which_are_quick(tmp_path: Path) -> None:
    full, quick, page = tmp_path / "full", tmp_path / "quick", tmp_path / "docs" / "lecture.md"
    make(full, "one", "full settings")
    make(quick, "one", QUICK_MARK)
    make(quick, "two", QUICK_MARK)
    write_page(TITLES, [full, quick], page)
    text = page.read_text()
    assert text.index("## One") < text.index("full settings") < text.index("## Two") < text.index(QUICK_MARK)
    assert text.count(QUICK_MARK) == 1
    assert "Three" not in text
    shown = {path.name for path in (page.parent / "images").iterdir()}
    assert shown == {f"lecture-{part}-{name}.png" for part in ("one", "two") for name in ("curve", "digits")}
    assert all(f"images/{name}" in text for name in shown)


def test_a_part_that_was_not_run_here_stays_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "lecture.md"
    for part in TITLES:
        make(tmp_path / "elsewhere", part, f"{part}, as it was")
    write_page(TITLES, [tmp_path / "elsewhere"], page)
    before = page.read_text()
    write_page(TITLES, [tmp_path / "nothing"], page)
    assert page.read_text() == before
    make(tmp_path / "here", "two", "measured anew")
    write_page(TITLES, [tmp_path / "here"], page)
    assert page.read_text() == before.replace("two, as it was", "measured anew")
    assert len(list((page.parent / "images").iterdir())) == 6


def test_quick_figures_do_not_replace_full_ones_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "lecture.md"
    make(tmp_path / "elsewhere", "one", "full settings")
    make(tmp_path / "quick", "one", QUICK_MARK)
    write_page(TITLES, [tmp_path / "quick"], page)
    write_page(TITLES, [tmp_path / "elsewhere"], page)
    write_page(TITLES, [tmp_path / "full", tmp_path / "quick"], page)
    assert "full settings" in page.read_text()
    assert QUICK_MARK not in page.read_text()


def test_a_part_that_broke_off_leaves_the_kept_one_alone(tmp_path: Path) -> None:
    make(tmp_path, "one", "before")
    Section("One", tmp_path / "one", "after").say("half")
    assert "before" in (tmp_path / "one" / "section.md").read_text()
