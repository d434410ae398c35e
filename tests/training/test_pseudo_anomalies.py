"""Things that stand, hurry and drive: where they are, that they are to be seen, and that nothing else changes."""

import numpy as np
import pytest

from training.pseudo_anomalies import (
    CONTRAST,
    Grey,
    Mask,
    Scene,
    Spoiled,
    Thing,
    drive,
    hurry,
    leave_standing,
    skip_frames,
)

HEIGHT, WIDTH, TIME = 96, 160, 48


def walk(seed: int, speed: float = 1.0) -> Grey:
    """Let two people of 22 x 10 pixels walk over the ground, each in a row of its own."""
    rng = np.random.default_rng(seed)
    clip = np.repeat((110 + np.linspace(0, 30, HEIGHT))[None, :, None], TIME, 0).repeat(WIDTH, 2)
    for base in (60, 90):
        start, way = rng.integers(20, 70), rng.choice([-1, 1])
        for index in range(TIME):
            left = round(start + 40 * (way < 0) + way * speed * index)
            clip[index, base - 22 : base, max(0, left) : max(0, left + 10)] = rng.integers(20, 40)
    return np.asarray(np.rint(clip + rng.normal(0, 1, clip.shape)).clip(0, 255), np.uint8)


CLIPS = [walk(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(CLIPS, every=3)


def changed(clip: Grey, spoiled: Spoiled) -> Mask:
    return np.abs(clip.astype(int) - spoiled.frames) > 0


# -- the scene


def test_the_background_is_what_nobody_hides(scene: Scene) -> None:
    expected = 110 + np.linspace(0, 30, HEIGHT)
    assert np.abs(scene.background.astype(float).mean(axis=1) - expected).max() < 2


def test_people_are_found_and_measured(scene: Scene) -> None:
    people = scene.walkers(CLIPS[0][10])
    assert len(people) == 2
    assert all(person.is_upright and scene.is_single(person) for person in people)
    assert scene.person_height(75) == pytest.approx(22, abs=3)


def test_an_empty_scene_tells_no_sizes() -> None:
    with pytest.raises(ValueError, match="nobody walks"):
        Scene([np.full((20, 40, 60), 100, np.uint8)])


def test_it_knows_where_somebody_stood() -> None:
    standing = CLIPS[0].copy()
    standing[:, 40:62, 130:140] = 20
    assert (
        Scene(
            [
                *CLIPS,
                standing,
            ],
            every=3,
        )
        .stood_on[45:60, 132:138]
        .all()
    )


# -- what stands


@pytest.mark.parametrize("thing", Thing)
@pytest.mark.parametrize("seed", range(4))
def test_a_standing_thing_stays_in_its_place_and_is_to_be_seen(scene: Scene, thing: Thing, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spoiled = leave_standing(CLIPS[0], CLIPS[1], scene, thing, rng)
    place = spoiled.masks.any(axis=0)
    assert spoiled.frames.shape == CLIPS[0].shape
    assert spoiled.anomalous.mean() > 0.8
    rows, columns = np.nonzero(place)
    grown = np.zeros_like(place)
    grown[max(0, rows.min() - 2) : rows.max() + 3, max(0, columns.min() - 2) : columns.max() + 3] = True
    assert not changed(CLIPS[0], spoiled)[:, ~grown].any(), "something changed elsewhere"
    assert not (place & scene.stood_on).any()
    apart = np.abs(
        spoiled.frames[spoiled.masks].astype(float)
        - np.broadcast_to(scene.background, spoiled.masks.shape)[spoiled.masks]
    )
    assert apart.mean() > 0.7 * CONTRAST
    always = spoiled.masks.all(axis=0)
    assert spoiled.frames[:, always].std(axis=0).mean() < 4, "it flickers"


def test_sizes_suit_the_people_there(scene: Scene) -> None:
    heights = {}
    for thing in Thing:
        masks = leave_standing(CLIPS[0], CLIPS[1], scene, thing, np.random.default_rng(5)).masks.any(axis=0)
        heights[thing] = int(np.ptp(np.nonzero(masks)[0])) + 1
    assert heights[Thing.BAG] < 0.6 * 22
    assert 0.7 * 22 < heights[Thing.PERSON] < 1.4 * 22
    assert 0.9 * 22 < heights[Thing.CART] < 1.8 * 22


def test_who_is_nearer_hides_the_thing(scene: Scene) -> None:
    hidden = 0
    for seed in range(12):
        spoiled = leave_standing(CLIPS[0], CLIPS[1], scene, Thing.CART, np.random.default_rng(seed))
        base = np.nonzero(spoiled.masks.any(axis=0))[0].max() + 1
        for index, frame in enumerate(CLIPS[0]):
            for person in scene.walkers(frame):
                if person.base > base + 1:
                    assert not spoiled.masks[index][person.mask].any()
                    hidden += int((person.mask & spoiled.masks.any(axis=0)).any())
    assert hidden, "in none of the clips did anybody pass in front"


def test_without_a_place_nothing_is_pasted() -> None:
    crowded = Scene(CLIPS, every=3)
    crowded.stood_on = np.ones_like(crowded.stood_on)
    with pytest.raises(ValueError, match="found no place for a bag"):
        leave_standing(CLIPS[0], CLIPS[1], crowded, Thing.BAG, np.random.default_rng(0))


# -- what moves


def test_skipped_frames_are_the_clip_played_faster(scene: Scene) -> None:
    spoiled = skip_frames(CLIPS[0], scene, 3)
    assert np.array_equal(spoiled.frames, CLIPS[0][::3])
    assert spoiled.anomalous.all()


def test_one_walker_hurries_and_the_others_do_not(scene: Scene) -> None:
    spoiled = hurry(CLIPS[0], CLIPS[2], scene, 3, np.random.default_rng(0))
    seen = np.flatnonzero(spoiled.anomalous)
    assert len(seen) >= 8
    centres = [np.nonzero(spoiled.masks[index])[1].mean() for index in seen]
    assert np.abs(np.diff(centres)).mean() == pytest.approx(3, abs=0.6)
    assert np.array_equal(spoiled.frames[~spoiled.anomalous], CLIPS[0][~spoiled.anomalous])


def test_where_nobody_walks_nobody_hurries(scene: Scene) -> None:
    empty = np.repeat(scene.background[None], TIME, 0)
    with pytest.raises(ValueError, match="found no walker"):
        hurry(CLIPS[0], empty, scene, 3, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(3))
def test_a_cart_drives_at_its_speed_and_leaves_the_frame(scene: Scene, seed: int) -> None:
    spoiled = drive(CLIPS[0], scene, 4.0, np.random.default_rng(seed))
    lefts = [np.nonzero(mask)[1].min() for mask in spoiled.masks if mask.any() and not mask[:, [0, -1]].any()]
    assert len(lefts) > 5
    assert np.median(np.abs(np.diff(lefts))) == pytest.approx(4, abs=1)
    assert 0 < spoiled.anomalous.sum() <= TIME


@pytest.mark.parametrize("make", [
    lambda scene, rng: leave_standing(CLIPS[0], CLIPS[1], scene, Thing.PERSON, rng),
    lambda scene, rng: drive(CLIPS[0], scene, 2.0, rng),
    lambda scene, rng: hurry(CLIPS[0], CLIPS[2], scene, 3, rng),
])  # fmt: skip
def test_the_seed_decides(scene: Scene, make) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    first, again, other = (make(scene, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)
