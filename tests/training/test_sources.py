"""Frames from folders, videos and archives, and what is said of those that cannot be read."""

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.images import ImageFormat, Pixels, encode
from tests.training.tiny import draw
from training.errors import DataError
from training.sources import DECODED_AHEAD, Reader, as_numbered

Found = list[tuple[str, str, Pixels]]


def read(root: Path, source: str = "frames", *, channels: int = 1, stride: int = 1) -> tuple[Found, list[str]]:
    unreadable: list[str] = []
    return list(Reader(root, channels, stride, unreadable).read(source)), unreadable


def keys(found: Found) -> list[str]:
    return [key for _, key, _ in found]


def write_images(folder: Path, count: int, *, form: ImageFormat = ImageFormat.PNG, seed: int = 0) -> Pixels:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = draw(count, seed=seed)
    for index, frame in enumerate(pixels):
        (folder / f"{index:03d}{form.value.suffixes[0]}").write_bytes(encode(frame, form))
    return pixels


def write_video(path: Path, pixels: Pixels) -> Path:
    """Write [n, h, w, 1] grey frames, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "gray"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame[..., 0], format="gray")))
        container.mux(stream.encode())
    return path


# -- folders


def test_a_folder_is_read_in_any_depth_in_order(tmp_path: Path) -> None:
    expected = write_images(tmp_path / "frames" / "b" / "deep", 2)
    write_images(tmp_path / "frames" / "a", 2)
    write_images(tmp_path / "frames", 1)
    (tmp_path / "frames" / "notes.txt").write_text("no frame")
    found, unreadable = read(tmp_path)
    assert [(clip, key) for clip, key, _ in found] == [
        ("frames", "frames/000.png"),
        ("frames/a", "frames/a/000.png"),
        ("frames/a", "frames/a/001.png"),
        ("frames/b/deep", "frames/b/deep/000.png"),
        ("frames/b/deep", "frames/b/deep/001.png"),
    ]
    assert np.array_equal(np.stack([pixels for _, _, pixels in found[3:]]), expected)
    assert unreadable == []


def test_frames_and_clips_come_as_they_are_numbered(tmp_path: Path) -> None:
    """Without leading zeros too: letter by letter, frame_10 would come before frame_2."""
    names = [
        f"clip{clip}/{name}.png"
        for clip in (9, 10)
        for name in ("frame", "frame_1", "frame_2", "frame_10", "take 2 of 3", "take 10 of 3")
    ]
    for name in names:
        path = tmp_path / "frames" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(draw(1)[0], ImageFormat.PNG))
    write_video(tmp_path / "frames" / "10.mkv", draw(1))
    write_video(tmp_path / "frames" / "9.mkv", draw(1))
    found, _ = read(tmp_path)
    assert keys(found) == [f"frames/{name}" for name in (*names, "9.mkv#000000", "10.mkv#000000")]


@given(names=st.sets(st.text("0aé.²٣ _", min_size=1).filter(lambda name: name.strip(".")), min_size=1))
def test_any_names_have_one_order(names: set[str]) -> None:
    paths = [Path("frames", name) for name in names]
    ordered = sorted(paths, key=as_numbered)
    paths.reverse()
    assert sorted(paths, key=as_numbered) == ordered


def test_equal_names_in_different_folders_are_different_frames(tmp_path: Path) -> None:
    for camera in ("north", "south"):
        write_images(tmp_path / "frames" / camera / "morning", 3)
    found, _ = read(tmp_path)
    assert len(set(keys(found))) == 6
    assert {clip for clip, _, _ in found} == {"frames/north/morning", "frames/south/morning"}


@pytest.mark.parametrize("form", list(ImageFormat), ids=lambda form: form.name)
def test_every_format_that_is_served_is_learned_from(tmp_path: Path, form: ImageFormat) -> None:
    expected = write_images(tmp_path / "frames", 2, form=form)
    found, _ = read(tmp_path)
    assert len(found) == 2
    assert np.abs(found[0][2].astype(int) - expected[0]).max() < 40  # WebP at quality 92 is coarse on tiny frames


def test_grey_files_may_be_read_in_colour_and_the_other_way_round(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 1)
    (tmp_path / "frames" / "colour.png").write_bytes(encode(draw(1, channels=3)[0], ImageFormat.PNG))
    for channels in (1, 3):
        found, _ = read(tmp_path, channels=channels)
        assert [pixels.shape for _, _, pixels in found] == [(16, 24, channels)] * 2


@pytest.mark.parametrize("source", [".", "./frames", "frames/"])
def test_keys_are_plain_paths_below_the_root(tmp_path: Path, source: str) -> None:
    write_images(tmp_path / "frames" / "a", 1)
    found, _ = read(tmp_path, source)
    assert found[0][:2] == ("frames/a", "frames/a/000.png")


def test_a_source_may_lie_elsewhere(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere" / "a", 1)
    (tmp_path / "root").mkdir()
    found, _ = read(tmp_path / "root", str(tmp_path / "elsewhere"))
    assert found[0][:2] == ("../elsewhere/a", "../elsewhere/a/000.png")


def test_the_stride_counts_in_every_clip_anew(tmp_path: Path) -> None:
    for clip in ("a", "b"):
        write_images(tmp_path / "frames" / clip, 5)
    found, _ = read(tmp_path, stride=2)
    assert [key.removeprefix("frames/") for key in keys(found)] == [
        "a/000.png", "a/002.png", "a/004.png", "b/000.png", "b/002.png", "b/004.png",
    ]  # fmt: skip


def test_unreadable_images_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 2 * DECODED_AHEAD + 3)
    (tmp_path / "frames" / "001.png").write_bytes(b"no image")
    (tmp_path / "frames" / "020.png").write_bytes(b"")
    found, unreadable = read(tmp_path)
    assert unreadable == ["frames/001.png", "frames/020.png"]
    assert len(found) == 2 * DECODED_AHEAD + 1
    assert keys(found) == sorted(keys(found))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_lengths_of_the_clips_are_told_before_they_are_read(tmp_path: Path, stride: int) -> None:
    write_images(tmp_path / "frames" / "a", 5)
    write_images(tmp_path / "frames" / "b" / "deep", 4)
    write_video(tmp_path / "frames" / "c.mkv", draw(7))
    (tmp_path / "frames" / "d.mp4").write_bytes(b"no video")
    np.savez(tmp_path / "archive.npz", x=draw(6)[..., 0])
    for source in ("frames", "frames/c.mkv", "archive.npz:x"):
        found, _ = read(tmp_path, source, stride=stride)
        clips = [clip for clip, _, _ in found]
        lengths = [length for length in Reader(tmp_path, 1, stride, []).lengths(source) if length]
        assert lengths == [clips.count(clip) for clip in dict.fromkeys(clips)]
    assert list(Reader(tmp_path, 1, stride, []).lengths("nowhere")) == []


def test_decoding_runs_only_a_little_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that wait to be scaled down are large: a set must not be decoded whole before the first is taken."""
    write_images(tmp_path / "frames", 3 * DECODED_AHEAD)
    reader = Reader(tmp_path, 1, 1, [])
    decoded: list[Path] = []
    image = Reader._image

    def spy(self: Reader, path: Path) -> Pixels | None:
        decoded.append(path)
        return image(self, path)

    monkeypatch.setattr(Reader, "_image", spy)
    frames = iter(reader.read("frames"))
    next(frames)
    assert len(decoded) <= DECODED_AHEAD


# -- videos


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_video_is_one_clip_of_numbered_frames(tmp_path: Path, suffix: str) -> None:
    pixels = draw(5)
    write_video(tmp_path / "frames" / f"cam{suffix}", pixels)
    found, _ = read(tmp_path)
    name = f"frames/cam{suffix}"
    assert [(clip, key) for clip, key, _ in found] == [(name, f"{name}#{index:06d}") for index in range(5)]
    assert np.array_equal(np.stack([frame for _, _, frame in found]), pixels)


def test_a_video_may_be_the_source_itself(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.mkv", draw(4))
    found, _ = read(tmp_path, "cam.mkv", stride=3, channels=3)
    assert [(clip, key) for clip, key, _ in found] == [("cam.mkv", "cam.mkv#000000"), ("cam.mkv", "cam.mkv#000003")]
    assert found[0][2].shape == (16, 24, 3)


def test_an_unreadable_video_among_others_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "frames" / "good.mkv", draw(3))
    (tmp_path / "frames" / "bad.mp4").write_bytes(b"no video")
    found, unreadable = read(tmp_path)
    assert len(found) == 3
    assert unreadable == ["frames/bad.mp4"]
    with pytest.raises(DataError, match=r"bad\.mp4: not a readable video"):
        read(tmp_path, "frames/bad.mp4")


# -- archives


def test_an_archive_holds_images_that_are_clips_of_their_own(tmp_path: Path) -> None:
    pixels = draw(3)
    np.savez(tmp_path / "set.npz", flat=pixels[..., 0], deep=pixels)
    for key in ("flat", "deep"):
        found, _ = read(tmp_path, f"set.npz:{key}")
        assert [clip for clip, _, _ in found] == [f"set.npz:{key}/{index:06d}" for index in range(3)]
        assert np.array_equal(np.stack([frame for _, _, frame in found]), pixels)


def test_a_wrong_array_is_refused_with_its_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", floats=np.zeros((2, 4, 4), np.float32), colour=draw(2, channels=3))
    with pytest.raises(DataError, match=r"floats should be uint8 \[n, h, w\].* is float32 \[2, 4, 4, 1\]"):
        read(tmp_path, "set.npz:floats")
    with pytest.raises(DataError, match=r"is uint8 \[2, 16, 24, 3\]"):
        read(tmp_path, "set.npz:colour")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"set\.npz: cannot read the array 'x'"):
        read(tmp_path, "set.npz:x")


def test_a_missing_key_or_archive_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=draw(1))
    with pytest.raises(DataError, match="cannot read the array 'y'"):
        read(tmp_path, "set.npz:y")
    with pytest.raises(DataError, match=r"other\.npz: cannot read"):
        read(tmp_path, "other.npz:x")


@pytest.mark.parametrize("source", ["nowhere", "file.txt", "nowhere.mp4"])
def test_a_missing_source_says_where_it_was_looked_for(tmp_path: Path, source: str) -> None:
    (tmp_path / "file.txt").write_text("neither")
    with pytest.raises(DataError, match=f"{tmp_path}/{source}: no such folder, video or archive"):
        read(tmp_path, source)
