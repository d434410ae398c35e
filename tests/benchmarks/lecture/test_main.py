"""The command: where the page goes, what it is made of, and when it fails."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.lecture import __main__ as command
from benchmarks.lecture.course import Course
from benchmarks.lecture.page import QUICK_MARK, Section
from benchmarks.musts import Must, Side


def study(course: Course, section: Section) -> None:
    """Find a small error with full settings only."""
    found = 9.0 if course.quick else 2.0
    section.table("Errors", [{"": "plain", "error": found}])
    section.must([Must("error", Side.AT_MOST, 3, {"plain": found})])


@pytest.fixture(autouse=True)
def _two_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "PARTS", {"one": ("First", study), "two": ("Second", study)})
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks.lecture", *arguments])
    command.main()


def test_a_quick_run_leaves_the_page_of_the_full_figures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "--quick")
    text = Path("runs/lecture/quick/lecture.md").read_text()
    assert text.count(QUICK_MARK) == 2
    assert "`python -m benchmarks.lecture --parts two --quick`" in text
    assert not Path("docs").exists()


def test_full_figures_replace_quick_ones_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "--quick")
    run(monkeypatch, "--parts", "two")
    text = Path("docs/lecture.md").read_text()
    assert text.count(QUICK_MARK) == 1
    assert text.index("## First") < text.index(QUICK_MARK) < text.index("## Second") < text.index("| plain | 2 |")


def test_no_parts_write_the_page_from_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "--quick", "--parts", "one")
    run(monkeypatch, "--parts")
    text = Path("docs/lecture.md").read_text()
    assert "## First" in text
    assert "## Second" not in text


def test_full_figures_that_miss_a_must_fail_after_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(course: Course, section: Section) -> None:
        section.must([Must("error", Side.AT_MOST, 3, {"plain": 4.0 + course.quick})])

    monkeypatch.setattr(command, "PARTS", {"one": ("First", weak)})
    with pytest.raises(SystemExit, match="missed: error <= 3: found 4"):
        run(monkeypatch)
    assert "| NO |" in Path("docs/lecture.md").read_text()


def test_a_part_says_what_training_took_in_all_runs_and_measuring_in_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cost = Path("runs/lecture/quick/models/a/cost.json")
    cost.parent.mkdir(parents=True)
    cost.write_text(json.dumps({"cpu_seconds": 540.0}))
    clock = iter((1000.0, 1180.0))
    monkeypatch.setattr("benchmarks.lecture.__main__.time.process_time", lambda: next(clock))

    def resumed(course: Course, _: Section) -> None:
        cost.write_text(json.dumps({"cpu_seconds": 600.0}))
        course.minutes["a"] = 10.0

    monkeypatch.setattr(command, "PARTS", {"one": ("First", resumed)})
    run(monkeypatch, "--quick")
    text = Path("runs/lecture/quick/lecture.md").read_text()
    assert "took 10.0 CPU minutes, in however many runs; measuring took 2.0 in this one." in text


def test_a_part_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--parts", "bottlenek")
    assert "bottlenek" in capsys.readouterr().err
