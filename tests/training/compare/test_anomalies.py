"""Every sort of anomaly is where its mask is, is visible, and is the same again with the same seed."""

import numpy as np
import pytest

from training.compare.anomalies import PLACES, SORTS, TRIES, Anomalies, Sort, spoil, visible
from training.compare.parts import Parts
from training.errors import DataError
from training.pseudo_anomalies import Grey, Spoiled

TALL, WIDE = 64, 96
RNG = np.random.default_rng(3)
TEXTURE = RNG.integers(60, 200, (TALL // 2, WIDE // 2), np.uint8).repeat(2, 0).repeat(2, 1)


@pytest.fixture
def stretch() -> Grey:
    """Give five frames of a textured scene at rest, and the light going up."""
    return np.stack([TEXTURE + index for index in range(5)]).astype(np.uint8)


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.name)
@pytest.mark.parametrize("seed", range(5))
def test_an_anomaly_is_visible_and_only_where_its_mask_is(sort: Sort, seed: int, stretch: Grey) -> None:
    spoiled = visible(stretch, stretch, sort, np.random.default_rng(seed))
    assert spoiled.frames.shape == spoiled.masks.shape == stretch.shape
    assert spoiled.frames.dtype == np.uint8
    apart = np.abs(spoiled.frames.astype(int) - stretch)[-1]
    mask = spoiled.masks[-1]
    assert 5 < mask.sum() < 0.4 * mask.size
    assert apart[mask].mean() >= sort.change
    near = np.array(
        [[mask[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].any() for x in range(WIDE)] for y in range(TALL)]
    )
    assert (apart[~near] > 0).mean() < 0.01, "soft borders reach three pixels, and ragged ones hardly further"


def test_what_stands_stands_and_what_passes_passes(stretch: Grey) -> None:
    by_name = {sort.name: sort for sort in SORTS}
    standing = visible(stretch, stretch, by_name["standing thing"], np.random.default_rng(1)).masks
    assert (standing == standing[0]).all()
    passing = visible(stretch, stretch, by_name["passing thing"], np.random.default_rng(1)).masks
    centres = [np.argwhere(mask)[:, 1].mean() for mask in passing if mask.any()]
    steps = np.diff(centres)
    assert len(steps) >= 2
    assert (np.abs(steps) > 1).all()
    assert len(set(np.sign(steps))) == 1


def test_where_none_is_visible_enough_the_most_visible_counts(stretch: Grey) -> None:
    drawn: list[int] = []

    def draw(stretch: Grey, donor: Grey, rng: np.random.Generator) -> Spoiled:  # noqa: ARG001
        drawn.append(int(rng.integers(1, 9)))
        frames, masks = stretch.copy(), np.zeros(stretch.shape, bool)
        frames[:, :4, :4] += np.uint8(drawn[-1])
        masks[:, :4, :4] = True
        return Spoiled(frames, masks)

    spoiled = visible(stretch, stretch, Sort("faint", draw), np.random.default_rng(0))
    assert len(drawn) == TRIES
    assert int(spoiled.frames[0, 0, 0]) - int(stretch[0, 0, 0]) == max(drawn)


def test_every_sort_is_put_into_the_same_places(parts: Parts) -> None:
    anomalies = spoil(parts.test, parts.learn.train, 3, seed=0)
    assert anomalies.places == min(PLACES, 2 * 14)
    assert len(anomalies.frames) == len(SORTS) * anomalies.places * 3
    assert len(anomalies.masks) == len(anomalies.ends) == len(SORTS) * anomalies.places
    assert [parts.test.clips[at] for at in anomalies.at] == [sorted(set(parts.test.clips))[c] for c in anomalies.clips]
    for slot in (0, 5, anomalies.places + 5):  # the mask is of the last frame, and outside of it all is as it was
        clean = parts.test.pixels[anomalies.at[slot % anomalies.places]]
        changed = anomalies.frames.pixels[anomalies.ends[slot]] != clean
        assert changed[..., 0][anomalies.masks[slot]].mean() > 0.5
        assert changed.mean() < 0.5
    again = spoil(parts.test, parts.learn.train, 3, seed=0)
    other = spoil(parts.test, parts.learn.train, 3, seed=1)
    assert _pixels(again) == _pixels(anomalies)
    assert _pixels(other) != _pixels(anomalies)


def _pixels(anomalies: Anomalies) -> bytes:
    frames = anomalies.frames
    return frames.batch(range(len(frames))).tobytes()


def test_clips_that_are_too_short_are_told(parts: Parts) -> None:
    with pytest.raises(DataError, match="no held-out clip has 17 frames in a row; give longer clips"):
        spoil(parts.test, parts.learn.train, 17, seed=0)
