"""Clean patches against the truth, and which frames they are made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.camera.scene import Recording, record
from training.camera.footage import clips_of, cut
from training.camera.pairs import FEWEST, MOST, PATCH, Pairs, Scene, apart, find_pairs, middle_mean
from training.errors import DataError


def pairs_of(recording: Recording, stride: int = 1) -> tuple[Pairs, Pairs]:
    return find_pairs(recording.frames, cut(clips_of(recording.frames), stride), stride, seed=0)


def truth_of(recording: Recording, pairs: Pairs) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([place.cut(recording.truth[place.frame]) for place in pairs.places])


@given(st.sets(st.integers(0, 200)), st.integers(0, 200), st.integers(1, 20))
def test_chosen_times_are_apart_from_one_another_and_from_the_noisy_one(
    still: set[int], time: int, stride: int
) -> None:
    chosen = apart(np.array(sorted(still), np.intp), time, stride)
    assert set(chosen) <= still
    assert len(chosen) <= MOST
    assert all(abs(one - time) >= stride for one in chosen)
    assert (np.diff(chosen) >= stride).all()
    if still and not chosen:
        assert all(abs(one - time) < stride for one in still)


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_the_middle_mean_spares_a_quarter_on_either_side(count: int) -> None:
    stack = np.random.default_rng(0).normal(size=(count, 3, 2)).astype(np.float32)
    spared = count // 4
    expected = np.sort(stack, axis=0)[spared : count - spared].mean(0)
    assert middle_mean(stack) == pytest.approx(expected)


def test_clean_patches_are_near_the_truth_and_know_how_near() -> None:
    recording = record((80, 80), sigma=12, channels=3)
    for pairs in pairs_of(recording):
        error = pairs.clean - truth_of(recording, pairs).astype(np.float32)
        found = float(np.sqrt(np.square(error).mean()))
        assert found < 12 / np.sqrt(31 / 1.6)  # 31 frames, of which the middle half counts
        assert pairs.clean_error == pytest.approx(found, rel=0.2)
        assert pairs.levels == pytest.approx(12, rel=0.05)
        assert pairs.noisy.shape == (len(pairs), PATCH, PATCH, 3)


def test_no_pair_shows_the_walker_and_held_out_frames_are_later() -> None:
    recording = record((60, 40))
    training, held_out = pairs_of(recording)
    for pairs in (training, held_out):
        assert not any(place.cut(recording.walker[place.frame]).any() for place in pairs.places)
    assert max(place.frame for place in training.places) < 60 <= min(place.frame for place in held_out.places)


def test_light_is_brought_to_that_of_the_noisy_frame() -> None:
    recording = record((60, 60), sigma=3, light=(1.0, 1.1), walks=False)
    pairs, _ = pairs_of(recording)
    assert np.abs(pairs.clean - truth_of(recording, pairs)).mean() < 1


def test_a_patch_that_is_seldom_still_gives_no_pair() -> None:
    recording = record((FEWEST,), walks=False)
    assert Scene(recording.frames, range(FEWEST), 1).pair(0, 0, 0) is None  # one is the noisy one


def test_psnr_and_purity() -> None:
    training, _ = pairs_of(record((60, 60), sigma=12))
    assert training.psnr(training.noisy) == pytest.approx(20 * np.log10(255 / 12), abs=0.3)
    assert training.purity == pytest.approx(1, abs=0.1)
    assert training.psnr(training.rounded) > 55
    assert 0 < training.frames <= 60


def test_when_everything_moves_the_cure_is_said() -> None:
    recording = record((60, 60), sigma=1, walks=False)
    for time, pixels in enumerate(recording.frames.pixels):
        pixels[:] = np.roll(pixels, 9 * time, axis=1)
    with pytest.raises(
        DataError, match=r"too much moves: 0 patches of 64 x 64 .* Give frames of a camera that is fixed"
    ):
        pairs_of(recording)


def test_frames_smaller_than_a_patch_are_refused() -> None:
    recording = record((60, 60))
    recording.frames.pixels = [pixels[:60] for pixels in recording.frames.pixels]
    with pytest.raises(DataError, match="the frames are 200 x 60 pixels; at least 64 x 64 are needed"):
        pairs_of(recording)
