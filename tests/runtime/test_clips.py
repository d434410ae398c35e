"""Windows of frames: the last ones, and the first one again where there are too few."""

import pytest

from runtime.clips import STILL, Window


@pytest.mark.parametrize(
    ("frames", "expected"), [([1], [1, 1, 1]), ([1, 2], [1, 1, 2]), ([1, 2, 3], [1, 2, 3]), ([1, 2, 3, 4], [2, 3, 4])]
)
def test_a_clip_begins_with_its_first_frame_repeated(frames: list[int], expected: list[int]) -> None:
    assert Window(3, 1).begun(frames) == expected


def test_a_still_is_its_last_frame() -> None:
    assert STILL.begun([1, 2]) == [2]


def test_all_of_a_whole_window_is_needed() -> None:
    assert Window.whole(5) == Window(5, 5)
