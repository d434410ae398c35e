"""The table is whole, and its sentences say plainly who loses, what to take and what cannot be trusted."""

from dataclasses import replace

import pytest

from tests.training.compare.test_ladder import of, rung
from training.compare.ladder import Ladder
from training.compare.table import aligned, protocol, rows, verdict

pytestmark = pytest.mark.xdist_group("compared")

NOTHING = rung("difference", 0.7, 0.1, learns=False)


def test_an_autoencoder_that_loses_is_named(ladder: Ladder) -> None:
    said = list(verdict(of(ladder, rung("good", 0.9, 5), rung("bad", 0.3, 1), rung("close", 0.65, 1), NOTHING)))
    assert said == [
        (
            "close does no better than difference, which learns nothing: it catches 65 % of the anomalies, difference "
            "70 %; the difference may be chance."
        ),
        "bad loses to difference, which learns nothing: it catches 30 % of the anomalies, difference 70 %.",
        "Pick: good, 90 % of the anomalies at 5.00 ms a frame: it catches most, and every faster kind clearly less.",
    ]


def test_a_faster_one_is_picked_with_the_reason_and_a_warning_where_nothing_helps(ladder: Ladder) -> None:
    said = list(verdict(of(ladder, rung("slow", 0.5, 5), rung("fast", 0.45, 1), NOTHING)))
    assert said[2] == (
        "Pick: fast, 45 % of the anomalies at 1.00 ms a frame: the fastest of those that do not catch clearly less "
        "than the best, slow, 50 % at 5.00 ms."
    )
    assert said[3].startswith("But difference catches 70 %, and learns nothing: before you take any kind, train for")


def test_where_none_loses_that_is_said(ladder: Ladder) -> None:
    said = list(verdict(of(ladder, rung("good", 0.8, 5), NOTHING)))
    assert said[0] == "No autoencoder loses to what learns nothing; the best of that, difference, catches 70 %."


def test_false_alarms_beyond_those_asked_for_are_told(ladder: Ladder) -> None:
    drifted = replace(rung("good", 0.8, 5), false_alarms=0.5)
    said = list(verdict(of(ladder, drifted, NOTHING)))
    assert "more normal frames alarm than the 10 % asked for: good 50.0 %." in said[-1]


def test_without_any_kind_there_is_nothing_to_pick(ladder: Ladder) -> None:
    said = list(verdict(of(ladder, NOTHING, deep="too deep")))
    assert said == ["No kind could be trained: there is nothing to pick.", "deep is left out: too deep."]


def test_the_table_has_a_row_each_and_stands_in_line(ladder: Ladder) -> None:
    lines = aligned(rows(ladder)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == {"|", "-"}
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert set(names[:2]) == {"contractive", "plain"}
    assert sum("(learns nothing)" in name for name in names) == 4
    assert names[-1] == "denoising"
    assert "left out" in lines[-1]
    assert "| passing thing | AUROC | false alarms | ms a frame | graph, KB | training, CPU min |" in lines[0]
    text = protocol(ladder)
    assert "door, 8 clips at 32 x 32, grey: 48 to learn" in text
    assert "168 synthetic anomalies, 28 of each sort" in text
