"""The part runs the command's own machinery on normal footage, and shows what that found."""

import json
import shlex
from dataclasses import replace

import pytest

from benchmarks.lecture import compare as part
from benchmarks.lecture.compare import command_of, compare, order_of
from benchmarks.lecture.course import Course
from benchmarks.lecture.page import Section
from training.__main__ import _parser


def test_the_part_shows_the_ladder_and_the_verdict(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = replace(order_of(course), kinds=("denoising", "plain"), every=1, steps=3, pixels=1024)
    monkeypatch.setattr(part, "order_of", lambda _: wish)
    section = Section("Which kind for my camera?", course.folder / "compare", "tiny")
    compare(course, section)
    section.write()
    (rows,) = json.loads((section.folder / "figures.json").read_text())["tables"].values()
    names = [row[""] for row in rows]
    assert names[0] == "plain"
    assert sum("(learns nothing)" in name for name in names) == 4
    assert names[-1] == "denoising"
    text = (section.folder / "section.md").read_text()
    assert "\n- Pick: plain, " in text
    assert "denoising is left out: it gives no anomaly score." in text
    assert (section.folder / "heat-maps.png").is_file()
    assert 60 * course.minutes["plain"] == pytest.approx(course.cpu_seconds)
    assert (course.folder / "models" / "compare" / "models" / "plain" / "manifest.json").is_file()


@pytest.mark.parametrize("quick", [True, False])
def test_the_command_on_the_page_asks_for_the_same(course: Course, *, quick: bool) -> None:
    order = order_of(replace(course, quick=quick))
    words = shlex.split(command_of(order))[3:]
    asked = _parser().parse_args(words)
    assert str(asked.frames) == "data/ped2/train"
    assert (asked.out, asked.steps, asked.every) == (order.out, order.steps, order.every)
    assert asked.false_alarm_rate == order.false_alarm_rate
    assert order.steps is not None or asked.minutes == order.minutes
