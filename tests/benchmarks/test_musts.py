"""Musts: the best model counts, on the right side."""

import pytest

from benchmarks.musts import Must, Side


@pytest.mark.parametrize(
    ("side", "wanted", "by", "kept"),
    [
        (Side.AT_LEAST, 33.8, "large", True),
        (Side.AT_LEAST, 33.9, "large", True),
        (Side.AT_LEAST, 34.0, "large", False),
        (Side.AT_MOST, 33.8, "small", True),
        (Side.AT_MOST, 33.5, "small", True),
        (Side.AT_MOST, 33.4, "small", False),
    ],
)
def test_the_best_model_is_held_to_the_bound(side: Side, wanted: float, by: str, *, kept: bool) -> None:
    must = Must("PSNR (dB)", side, wanted, {"small": 33.5, "large": 33.9})
    assert (must.by, must.kept) == (by, kept)
    assert must.row["ok"] == ("yes" if kept else "NO")


def test_a_figure_that_is_no_number_keeps_nothing() -> None:
    assert not Must("PSNR (dB)", Side.AT_LEAST, 30, {"broken": float("nan")}).kept
    assert not Must("loss (dB)", Side.AT_MOST, 30, {"broken": float("nan")}).kept


def test_what_is_printed_of_a_miss_says_wanted_and_found() -> None:
    assert str(Must("Nam25, PSNR (dB)", Side.AT_LEAST, 41.5, {"small": 38.9})) == (
        "Nam25, PSNR (dB) >= 41.5: found 38.9 (small)"
    )
