"""The truth about test frames: found by clip and name, refused where it is not what it should be."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny import draw
from training.data import Frames
from training.errors import DataError
from training.labels import PIXEL_STEP, Labels, read_labels, read_masks

HEAD = "clip,frame,anomalous\n"


def of_keys(*keys: str) -> Frames:
    """Return frames with these keys; the clip is what stands before the last / or #."""
    found = Frames()
    for key, pixels in zip(keys, draw(len(keys)), strict=True):
        found.add(key.rpartition("#" if "#" in key else "/")[0] or ".", key, pixels)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.csv"


def test_labels_are_found_by_clip_and_name_in_any_order(path: Path) -> None:
    path.write_text(HEAD + "b,001,1\na,001,0\na,000,1\nb,000,0\nb,unused,1\n")
    found = read_labels(path, "test", of_keys("test/a/000.jpg", "test/a/001.jpg", "test/b/000.png", "test/b/001.jpg"))
    assert found.anomalous.tolist() == [True, False, False, True]
    assert found.rows.tolist() == [2, 1, 3, 0]


def test_equal_names_in_different_clips_are_told_apart(path: Path) -> None:
    path.write_text(HEAD + "a/x,0,0\nb/x,0,1\n")
    assert read_labels(path, "./test/", of_keys("test/a/x/0.png", "test/b/x/0.png")).anomalous.tolist() == [False, True]


def test_frames_of_videos_and_of_the_folder_itself_have_labels_too(path: Path) -> None:
    path.write_text(HEAD + ".,a.b,0\nnight/cam.mp4,000012,1\n")
    found = read_labels(path, "test", of_keys("test/a.b.png", "test/night/cam.mp4#000012"))
    assert found.anomalous.tolist() == [False, True]
    assert read_labels(path, ".", of_keys("a.b.png", "night/cam.mp4#000012")).rows.tolist() == [
        0,
        1,
    ]


def test_a_mark_at_the_beginning_as_spreadsheets_write_it_does_no_harm(path: Path) -> None:
    path.write_text(HEAD + "a,0,0\na,1,1\n", encoding="utf-8-sig")
    assert read_labels(path, "test", of_keys("test/a/0.png", "test/a/1.png")).rows.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "should be a CSV with the columns clip, frame, anomalous"),
        (b"clip;frame;anomalous\na;0;0\n", "should be a CSV with the columns"),
        (b"clip,frame\na,0\n", "should be a CSV with the columns"),
        (b"PK\x03\x04\xff\xfe\x00", "should be a CSV with the columns"),
        (b"clip,frame,anomalous\na,0,yes\na,1,no\n", "anomalous should be 0 or 1; it is 'yes' for frame 0 of clip a"),
        (b"clip,frame,anomalous\na,0,0\na,1\n", "anomalous should be 0 or 1; it is None for frame 1 of clip a"),
        (b"clip,frame,anomalous\na,0,0\n", "has no label for 1 frames, test/a/1.png among them"),
        (b"clip,frame,anomalous\na,0,0\na,1,0\n", "labels only one class"),
        (b"clip,frame,anomalous\na,0,1\na,1,1\n", "labels only one class"),
    ],
)
def test_wrong_labels_are_refused_by_name(path: Path, content: bytes, complaint: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        read_labels(path, "test", of_keys("test/a/0.png", "test/a/1.png"))
    assert str(path) in str(caught.value)


def test_missing_labels_are_refused(path: Path) -> None:
    with pytest.raises(DataError, match="should be a CSV"):
        read_labels(path, "test", of_keys("test/a/0.png"))


# -- masks


def labels(*rows: int) -> Labels:
    return Labels(np.ones(len(rows), bool), np.asarray(rows))


def test_masks_come_in_the_order_of_the_frames(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((3, 16, 24)) < 0.5
    np.savez(tmp_path / "masks.npz", masks_packed=np.packbits(masks, axis=-1))
    found = read_masks(tmp_path / "masks.npz", labels(2, 0))
    assert found.dtype == np.bool_
    assert np.array_equal(found, masks[[2, 0], ::PIXEL_STEP, ::PIXEL_STEP])


def test_wrong_masks_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "masks.npz"
    for content in ({"masks": np.zeros((1, 4, 1), np.uint8)}, {"masks_packed": np.zeros((1, 4, 1))}):
        np.savez(path, **content)
        with pytest.raises(DataError, match=r"masks\.npz: should be an archive of masks_packed"):
            read_masks(path, labels(0))
    np.savez(path, masks_packed=np.zeros((1, 4, 1), np.uint8))
    with pytest.raises(DataError, match="one for each row of the labels"):
        read_masks(path, labels(0, 1))
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="should be an archive"):
        read_masks(path, labels(0))
    with pytest.raises(DataError, match="should be an archive"):
        read_masks(tmp_path / "missing.npz", labels(0))
