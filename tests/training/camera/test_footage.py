"""What is read of a camera's footage, what is refused, and how it is cut."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from runtime.images import ImageFormat, encode
from tests.training.camera.scene import record, write
from training.camera import footage
from training.camera.footage import SHORTEST, USUAL, as_channels, clips_of, cut, read_footage
from training.errors import DataError


def test_subfolders_are_clips_in_the_order_of_their_names(tmp_path: Path) -> None:
    recording = record((4, 3), channels=3)
    frames = read_footage(write(recording.frames, tmp_path / "cam"), 3)
    assert clips_of(frames) == [range(4), range(4, 7)]
    assert frames.keys[4] == "cam/clip1/000.png"
    assert all(map(np.array_equal, frames.pixels, recording.frames.pixels))


def test_every_other_frame_of_each_clip(tmp_path: Path) -> None:
    frames = read_footage(write(record((4, 3)).frames, tmp_path / "cam"), 3, every=2)
    assert clips_of(frames) == [range(2), range(2, 4)]


def test_grey_footage_is_kept_in_one_channel_and_colour_in_three(tmp_path: Path) -> None:
    folder = write(record((3,)).frames, tmp_path / "cam")
    assert {pixels.shape[2] for pixels in read_footage(folder, 3).pixels} == {1}
    colour = record((2,), channels=3, seed=1).frames
    colour.keys = ["clip0/900.png", "clip0/901.png"]
    write(colour, folder)
    assert {pixels.shape[2] for pixels in read_footage(folder, 3).pixels} == {3}
    assert {pixels.shape[2] for pixels in read_footage(folder, 1).pixels} == {1}


def test_grey_is_copied_to_the_channels_of_a_model() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    assert np.array_equal(as_channels(grey, 3), np.concatenate([grey] * 3, axis=3))
    assert as_channels(as_channels(grey, 3), 3).shape == (1, 2, 3, 3)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "holds no frame that can be read; give a folder of images, or a video"),
        ({"a.png": b"no image"}, "holds no frame that can be read"),
        ({"a.png": 40, "b.png": b"no image"}, "1 files are unreadable; mend or remove them:\n  cam/b.png"),
        ({"a.png": 40, "b.png": 48}, "cam/a.png is 40 x 40 pixels, cam/b.png is 48 x 48; give them one folder"),
    ],
)
def test_what_cannot_be_used_is_refused(files: dict[str, bytes | int], expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "cam"
    folder.mkdir()
    for name, content in files.items():
        side = content if isinstance(content, int) else 1
        image = encode(np.zeros((side, side, 1), np.uint8), ImageFormat.PNG)
        (folder / name).write_bytes(content if isinstance(content, bytes) else image)
    with pytest.raises(DataError, match=expected.replace("(", r"\(")):
        read_footage(folder, 3)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder of frames, and no such video"):
        read_footage(tmp_path / "nowhere", 3)


def test_what_does_not_fit_into_memory_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = record((5,))
    monkeypatch.setattr(footage, "MEMORY_GIB", 3.5 * recording.frames.pixels[0].nbytes / 2**30)
    assert len(read_footage(write(recording.frames, tmp_path / "cam"), 3)) == 3
    assert "the first 3 frames fill" in capsys.readouterr().err


# -- stretches


def test_long_clips_are_cut_and_the_last_fifth_is_held_out_with_a_gap() -> None:
    clip = range(100, 100 + 10 * USUAL * 2)
    stretches = cut([clip], stride=2)
    assert [len(stretches.training), len(stretches.held_out)] == [8, 2]
    for before, after in pairwise(stretches.training):
        assert before.stop == after.start
    assert stretches.held_out[0].start == stretches.training[-1].stop + 2
    assert stretches.held_out[-1].stop == clip.stop


def test_a_clip_of_its_own_is_held_out_whole() -> None:
    stretches = cut([range(30), range(30, 60)], stride=1)
    assert stretches.training == (range(30),)
    assert stretches.held_out == (range(30, 60),)


def test_a_single_short_clip_is_cut_as_often_as_it_can_be() -> None:
    stretches = cut([range(2 * SHORTEST)], stride=1)
    assert stretches.training == (range(SHORTEST),)
    assert stretches.held_out == (range(SHORTEST + 1, 2 * SHORTEST),)


def test_too_few_frames_say_how_many_are_needed() -> None:
    with pytest.raises(DataError, match=f"79 frames in a row are too few: .* at least 4 apart.*; {8 * SHORTEST} in"):
        cut([range(79), range(79, 100)], stride=4)
