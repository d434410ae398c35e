"""Frames in memory: limits, the split that keeps neighbours together, crops and what is made of them."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime.clips import STILL, Window
from runtime.images import ImageFormat, Pixels, encode
from tests.training.test_sources import write_images, write_video
from tests.training.tiny import draw, frames
from training.config import parse_recipe, shipped
from training.config import read_recipe as shipped_recipe
from training.data import DataConfig, Examples, Frames, Split, load, split
from training.errors import DataError


def config(*sources: str | dict[str, Any], **settings: Any) -> DataConfig:  # noqa: ANN401
    chosen = [{"path": source} if isinstance(source, str) else source for source in sources or ("frames",)]
    return DataConfig.model_validate({"sources": chosen, "channels": 1, "minimum_frames": 1, **settings})


def of_clips(*lengths: int) -> Frames:
    """Return frames of one pixel in clips of these lengths; the pixel counts them."""
    found = Frames()
    for number, length in enumerate(lengths):
        for index in range(length):
            found.add(f"clip{number}", f"clip{number}/{index}", np.full((1, 1, 1), len(found) % 256, np.uint8))
    return found


def positions(part: Frames) -> list[int]:
    return [int(key.rpartition("/")[2]) for key in part.keys]


# -- loading


def test_several_sources_make_one_set(tmp_path: Path) -> None:
    write_images(tmp_path / "one", 2)
    write_images(tmp_path / "two" / "one", 2)
    write_video(tmp_path / "three.mkv", draw(2))
    np.savez(tmp_path / "four.npz", x=draw(2))
    found = load(config("one", "two", "three.mkv", "four.npz:x"), tmp_path)
    assert len(found) == len(set(found.keys)) == 8
    assert sorted(set(found.clips)) == ["four.npz:x/000000", "four.npz:x/000001", "one", "three.mkv", "two/one"]


def test_frames_are_scaled_to_one_size(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 1)
    (tmp_path / "frames" / "large.png").write_bytes(encode(draw(1, height=40, width=30)[0], ImageFormat.PNG))
    found = load(config(height=8, width=12), tmp_path)
    assert [pixels.shape for pixels in found.pixels] == [(8, 12, 1)] * 2
    assert found.batch([0, 1]).shape == (2, 8, 12, 1)


def test_scaled_copies_share_their_key(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 2)
    found = load(config({"path": "frames", "scales": [1, 0.5, 0.01]}), tmp_path)
    assert [pixels.shape[:2] for pixels in found.pixels] == [(16, 24), (8, 12), (1, 1)] * 2
    assert len(set(found.keys)) == 2


def test_less_detail_is_softer_and_has_less_noise(tmp_path: Path) -> None:
    """A photograph's own noise would else be learned as a texture to keep."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "noise.png").write_bytes(encode(noise, ImageFormat.PNG))
    soft, sharp = (
        load(config({"path": "frames", "scales": [1], "detail": detail}), tmp_path).pixels[0] for detail in (0.25, 1)
    )
    assert soft.shape == sharp.shape == noise.shape
    assert soft.std() < 0.3 * sharp.std()


def test_frames_of_several_sizes_are_no_batch(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 1)
    (tmp_path / "frames" / "tall.png").write_bytes(encode(draw(1, height=20)[0], ImageFormat.PNG))
    found = load(config(), tmp_path)
    with pytest.raises(DataError, match=r"000\.png is 24 x 16 pixels, frames/tall\.png is 24 x 20; set data\.height"):
        found.batch([0, 1])


def test_too_few_frames_are_counted_against_the_minimum(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 3)
    with pytest.raises(DataError, match=r"found 3 frames in frames under .*; at least 16 are needed"):
        load(config(minimum_frames=16), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found 0 frames in empty"):
        load(config("empty"), tmp_path)


def test_more_unreadable_files_than_allowed_stop_the_run(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 9)
    (tmp_path / "frames" / "broken.jpg").write_bytes(b"\xff\xd8\xff cut short")
    with pytest.raises(DataError, match=r"1 of 10 files .* more than the 5% .*\n  frames/broken\.jpg"):
        load(config(unreadable_share=0.05), tmp_path)
    found = load(config(unreadable_share=0.1), tmp_path)
    assert len(found) == 9
    assert found.unreadable == ["frames/broken.jpg"]


def test_a_video_counts_as_one_file_however_long_it_is(tmp_path: Path) -> None:
    write_video(tmp_path / "frames" / "good.mkv", draw(30))
    (tmp_path / "frames" / "bad.mkv").write_bytes(b"no video")
    with pytest.raises(DataError, match="1 of 2 files"):
        load(config(unreadable_share=0.4), tmp_path)


def test_a_hash_in_a_name_is_no_video(tmp_path: Path) -> None:
    for number in range(3):
        write_images(tmp_path / "frames" / f"#{number}", 1)
        (tmp_path / "frames" / f"cam#{number}.png").write_bytes(encode(draw(1)[0], ImageFormat.PNG))
    (tmp_path / "frames" / "bad.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 7 files"):
        load(config(unreadable_share=0), tmp_path)


def test_memory_is_spent_up_to_the_budget(tmp_path: Path) -> None:
    write_images(tmp_path / "frames", 4)
    budget = 4 * 16 * 24 / 2**30
    assert len(load(config(memory_gib=budget), tmp_path)) == 4
    with pytest.raises(DataError, match=r"more than .* GiB of memory; raise data\.memory_gib"):
        load(config(memory_gib=0.9 * budget), tmp_path)
    with pytest.raises(DataError, match="GiB of memory"):
        load(config("frames", "frames", memory_gib=1.5 * budget), tmp_path)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"height": 16}, "give both height and width"),
        ({"validation_share": 0.5, "calibration_share": 0.5}, "leave nothing to train on"),
        ({"flips": True, "height": 16, "width": 24}, "they need square ones"),
        ({"channels": 4}, "Input should be 1 or 3"),
        ({"sources": []}, "at least 1 item"),
        ({"sources": [{"path": "a", "scales": [0]}]}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        config(**settings)


# -- splitting


def clips_of(part: Frames) -> set[str]:
    return set(part.clips)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=3, max_size=12),
    shares=st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_clip_is_on_two_sides_and_no_frame_is_lost(
    lengths: list[int], shares: tuple[float, float], seed: int
) -> None:
    whole = of_clips(*lengths)
    chosen = config(validation_share=shares[0], calibration_share=shares[1])
    try:
        dealt = split(whole, chosen, seed)
    except DataError:
        assert len(lengths) * (1 - sum(shares)) < 2, "there were clips enough"
        return
    sides = [dealt.train, dealt.validation, dealt.calibration]
    assert sum(len(clips_of(side)) for side in sides) == len(lengths)
    assert sorted(key for side in sides for key in side.keys) == sorted(whole.keys)
    assert all(len(side) for side in sides)


def test_the_seed_decides_who_is_where() -> None:
    whole = of_clips(*[2] * 20)
    first, same, other = (split(whole, config(), seed) for seed in (0, 0, 1))
    assert first.train.keys == same.train.keys
    assert first.calibration.keys == same.calibration.keys
    assert clips_of(first.train) != clips_of(other.train)
    assert [len(clips_of(part)) for part in (first.train, first.validation, first.calibration)] == [14, 2, 4]


def test_without_a_calibration_share_nothing_is_set_aside() -> None:
    dealt = split(of_clips(4, 4), config(calibration_share=0), 0)
    assert (len(dealt.train), len(dealt.validation), len(dealt.calibration)) == (4, 4, 0)


def test_a_single_clip_is_cut_in_time_with_gaps() -> None:
    dealt = split(of_clips(100), config(validation_share=0.1, calibration_share=0.2), 0)
    assert positions(dealt.train) == list(range(68))
    assert positions(dealt.validation) == list(range(70, 78))
    assert positions(dealt.calibration) == list(range(80, 100))
    dealt = split(of_clips(100), config(validation_share=0.1, calibration_share=0), 0)
    assert positions(dealt.train) == list(range(88))
    assert positions(dealt.validation) == list(range(90, 100))


def test_two_clips_are_both_cut_in_time() -> None:
    """One of the day and one of the night: each part must have seen both."""
    dealt = split(of_clips(100, 50), config(), 0)
    for part in (dealt.train, dealt.validation, dealt.calibration):
        assert clips_of(part) == {"clip0", "clip1"}
    for clip in ("clip0", "clip1"):
        ends = [
            [int(key.rpartition("/")[2]) for key in part.keys if key.startswith(clip)]
            for part in (dealt.train, dealt.validation, dealt.calibration)
        ]
        assert all(after[0] - before[-1] >= 2 for before, after in pairwise(ends)), "neighbours on two sides"


@given(count=st.integers(1, 400), shares=st.tuples(st.floats(0.01, 0.45), st.floats(0, 0.45)))
def test_cutting_in_time_keeps_the_order_and_the_gaps(count: int, shares: tuple[float, float]) -> None:
    chosen = config(validation_share=shares[0], calibration_share=shares[1])
    try:
        dealt = split(of_clips(count), chosen, 0)
    except DataError:
        assert count < 150 or min(shares) < 0.03, "there were frames enough"
        return
    filled = [positions(part) for part in (dealt.train, dealt.validation, dealt.calibration) if len(part)]
    assert len(filled) == (3 if shares[1] else 2)
    assert all(part == list(range(part[0], part[-1] + 1)) for part in filled)
    assert all(after[0] - before[-1] >= 2 for before, after in pairwise(filled))
    assert filled[-1][-1] == count - 1


@pytest.mark.parametrize("lengths", [(3,), (2, 2), (1, 1, 1)])
def test_too_few_frames_or_clips_say_what_to_add(lengths: tuple[int, ...]) -> None:
    chosen = config(validation_share=0.4, calibration_share=0.5)
    with pytest.raises(DataError, match=f"{sum(lengths)} frames in {len(lengths)} clips are too few.*add clips"):
        split(of_clips(*lengths), chosen, 0)


def test_stills_may_be_dealt_out_one_by_one_and_their_copies_stay_together() -> None:
    whole = of_clips(20)
    for pixels, key in zip(list(whole.pixels), list(whole.keys), strict=True):
        whole.add("clip0", key, pixels)
    dealt = split(whole, config(split="image"), 0)
    sides = [set(part.keys) for part in (dealt.train, dealt.validation, dealt.calibration)]
    assert [len(side) for side in sides] == [14, 2, 4]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert len(dealt.train) == 28


# -- examples


def examples(pixels: Iterable[Pixels], **settings: Any) -> Examples:  # noqa: ANN401
    found = Frames()
    for index, frame in enumerate(pixels):
        found.add("clip", str(index), frame)
    return Examples(found, config(**settings))


def test_an_example_is_the_frame_with_channels_first() -> None:
    pixels = draw(2, channels=3)
    found = examples(pixels, channels=3)
    assert len(found) == 2
    assert found[1].dtype == torch.uint8
    assert found[1].is_contiguous()
    assert np.array_equal(found[1].permute(1, 2, 0).numpy(), pixels[1])


def test_frames_that_may_not_be_written_to_are_no_trouble() -> None:
    pixels = draw(1)
    pixels.flags.writeable = False
    assert examples(pixels)[0].shape == (1, 16, 24)


def test_crops_are_squares_from_everywhere() -> None:
    counted = np.arange(16 * 24, dtype=np.uint16).reshape(1, 16, 24, 1).view(np.uint8)[..., :1]
    found = examples(np.ascontiguousarray(counted), crop=8)
    torch.manual_seed(0)
    crops = [found[0] for _ in range(400)]
    assert {tuple(crop.shape) for crop in crops} == {(1, 8, 8)}
    assert len({crop.numpy().tobytes() for crop in crops}) > 100  # of 9 * 17 = 153
    whole = np.lib.stride_tricks.sliding_window_view(counted[0, ..., 0], (8, 8)).reshape(-1, 64)
    places = {window.tobytes() for window in np.ascontiguousarray(whole)}
    assert {crop.numpy().tobytes() for crop in crops} <= places, "a crop that is not in the frame"


def test_a_frame_that_is_too_small_is_mirrored() -> None:
    found = examples(draw(1, height=3, width=5), crop=16)
    assert found[0].shape == (1, 16, 16)


def test_flips_reach_all_eight_positions() -> None:
    square = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    found = examples(square, crop=4, flips=True)
    torch.manual_seed(0)
    seen = {found[0].numpy().tobytes() for _ in range(200)}
    rotated = [np.rot90(square[0, ..., 0], turns) for turns in range(4)]
    assert seen == {np.ascontiguousarray(view).tobytes() for turn in rotated for view in (turn, turn[:, ::-1])}


def test_shifts_reach_every_place_and_repeat_the_border() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    found = examples(frame, shift=1)
    torch.manual_seed(0)
    seen = {found[0][0].numpy().tobytes() for _ in range(300)}
    rows, columns = np.arange(3), np.arange(4)
    moved = {
        frame[0, (rows + down).clip(0, 2)[:, None], (columns + along).clip(0, 3), 0].tobytes()
        for down in (-1, 0, 1)
        for along in (-1, 0, 1)
    }
    assert seen == moved


def test_a_share_of_colour_frames_is_made_grey_by_their_luma() -> None:
    pixels = draw(1, channels=3, seed=3)
    found = examples(pixels, channels=3, grey_share=0.3)
    torch.manual_seed(0)
    drawn = [found[0].numpy() for _ in range(500)]
    grey = [frame for frame in drawn if (frame[0] == frame[1]).all() and (frame[1] == frame[2]).all()]
    assert len(grey) / len(drawn) == pytest.approx(0.3, abs=0.05)
    luma = pixels[0].astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(grey[0][0] - luma).max() <= 0.501


def test_the_draws_come_from_torchs_seeded_generator() -> None:
    found = examples(draw(1, channels=3), channels=3, crop=8, flips=True, grey_share=0.5)

    def drawn() -> torch.Tensor:
        torch.manual_seed(4)
        return torch.stack([found[0] for _ in range(20)])

    assert torch.equal(drawn(), drawn())


def test_a_subset_keeps_what_belongs_together() -> None:
    whole = frames(12)
    part = whole.subset([3, 1])
    assert part.keys == [whole.keys[3], whole.keys[1]]
    assert part.clips == [whole.clips[3], whole.clips[1]]
    assert part.pixels[0] is whole.pixels[3], "frames are shared, not copied"


# -- the published sets


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(shipped().keys() - {"camera"}))
def test_the_sources_of_the_shipped_recipes_load_and_split(name: str, data: Path) -> None:
    recipe = shipped_recipe(name, ["data.frame_stride=20", "data.minimum_frames=1"])
    for source in recipe.data.sources:
        if not (data / source.path.partition(":")[0]).exists():
            pytest.skip(f"no {source.path} in {data}; see docs/data.md")
    dealt = split(load(recipe.data, data), recipe.data, recipe.seed)
    assert isinstance(dealt, Split)
    assert len(dealt.train) > len(dealt.validation) > 0
    assert bool(len(dealt.calibration)) == bool(recipe.data.calibration_share)
    assert not clips_of(dealt.train) & clips_of(dealt.validation) or recipe.data.split == "image"
    assert parse_recipe(recipe.model_dump(mode="json"), name) == recipe


# -- what a model sees at a frame


def test_a_model_of_single_frames_sees_the_frame() -> None:
    found = of_clips(3, 2)
    assert found.seen_at([1, 4], STILL).ravel().tolist() == [1, 4]


def test_a_model_of_clips_sees_the_frames_before_and_never_another_clip() -> None:
    found = of_clips(5, 4)
    seen = found.seen_at(range(9), Window.whole(3))
    assert seen.shape == (9, 3, 1, 1, 1)
    full = [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8]]
    expected = [full[0], full[0], *full[:3], full[3], full[3], *full[3:]]
    assert seen.reshape(9, 3).tolist() == expected


def test_a_model_to_which_fewer_are_enough_sees_the_first_frame_again() -> None:
    seen = of_clips(4, 2).seen_at(range(6), Window(3, 2))
    full = [[0, 0, 1], [0, 1, 2], [1, 2, 3], [4, 4, 5]]
    assert seen.reshape(6, 3).tolist() == [full[0], *full[:3], full[3], full[3]]


@pytest.mark.parametrize("index", [3, 4])
def test_a_clip_too_short_for_the_model_is_named(index: int) -> None:
    with pytest.raises(DataError, match="clip1 has fewer than the 3 frames"):
        of_clips(3, 2).seen_at([index], Window.whole(3))
