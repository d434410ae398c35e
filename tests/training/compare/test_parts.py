"""Whose frames are learnt from, set thresholds and are measured on, and when there are too few."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.training.compare.conftest import write_clips
from tests.training.tiny import draw, frames
from training.compare.order import Order
from training.compare.parts import Parts, read_parts
from training.data import Frames, full_windows
from training.errors import DataError


def all_of(parts: Parts) -> list[Frames]:
    return [parts.learn.train, parts.learn.validation, parts.threshold, parts.test]


def test_no_clip_is_in_two_parts(parts: Parts) -> None:
    clips = [set(part.clips) for part in all_of(parts)]
    assert [len(found) for found in clips] == [3, 1, 2, 2]
    assert len(set.union(*clips)) == 8
    assert (parts.data.height, parts.data.width) == (32, 32)
    assert parts.test.pixels[0].shape == (32, 32, 1)
    assert str(parts) == (
        "8 clips at 32 x 32, grey: 48 to learn, 16 to choose checkpoints, 32 to set thresholds, 32 to measure on"
    )


def test_one_clip_is_cut_in_time_with_gaps(tmp_path: Path) -> None:
    parts = read_parts(Order(write_clips(tmp_path / "door", 1, 200), tmp_path, false_alarm_rate=0.1, pixels=1024))
    numbers = [[int(key[-7:-4]) for key in part.keys] for part in all_of(parts)]
    for part in numbers:
        assert part == list(range(part[0], part[-1] + 1)), "a block of frames in a row"
    assert all(after[0] > before[-1] + 1 for before, after in pairwise(numbers)), "with a gap before the next"
    assert sum(map(len, numbers)) > 180


def test_the_same_frames_have_the_same_fingerprint_and_others_another(order: Order, parts: Parts) -> None:
    assert read_parts(order).fingerprint == parts.fingerprint
    assert read_parts(replace(order, every=2)).fingerprint != parts.fingerprint
    assert read_parts(replace(order, seed=1)).fingerprint != parts.fingerprint


def test_an_archive_is_read_too_every_image_a_clip(tmp_path: Path) -> None:
    np.savez(tmp_path / "frames.npz", x=draw(80, height=32, width=32))
    parts = read_parts(Order(tmp_path / "frames.npz:x", tmp_path, false_alarm_rate=0.1, pixels=1024))
    assert len(parts.threshold) == len(parts.test) == 20
    assert parts.suffice(1, 0.1)
    assert not parts.suffice(2, 0.1)


def test_a_window_is_full_where_a_clip_has_enough_frames_behind_it() -> None:
    assert full_windows(frames(8, clips=2), 1) == list(range(8))
    assert full_windows(frames(8, clips=2), 3) == [2, 3, 6, 7]
    assert full_windows(frames(8, clips=2), 5) == []


def test_too_few_frames_are_told_with_the_number_that_is_enough(order: Order) -> None:
    with pytest.raises(DataError, match=r"128 frames are too few: 32 .* needs 99 there; give 396 and more in clips"):
        read_parts(replace(order, false_alarm_rate=0.01))
    with pytest.raises(DataError, match=r"32 frames are too few: .* a smaller --every, or accept more false alarms"):
        read_parts(replace(order, every=4))


def test_a_damaged_frame_among_many_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_clips(tmp_path / "door", 4, 40)
    (folder / "00" / "000.png").write_bytes(b"torn")
    wish = Order(folder, tmp_path, false_alarm_rate=0.1, pixels=1024)
    assert sum(len(part) for part in all_of(read_parts(wish))) == 159
    assert "1 unreadable files left out:\n  door/00/000.png" in capsys.readouterr().err
    for index in range(10):
        (folder / "01" / f"{index:03d}.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"11 files are unreadable; mend or remove them:\n  door/00/000.png"):
        read_parts(wish)
