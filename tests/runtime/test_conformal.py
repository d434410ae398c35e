"""Thresholds keep their promise on exchangeable scores, say when they cannot, and tell what correlation does."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.conformal import (
    KEPT_HIGHEST,
    BlockBootstrap,
    Events,
    FalseAlarms,
    NormalScores,
    block_length,
    calibrate,
    check_enough,
    conformal_threshold,
    gamma_quantile,
    map_range,
)
from runtime.errors import InvalidInput, TooFewFrames
from runtime.manifest import Calibration

Scores = npt.NDArray[np.float64]


def normal_scores(scores: Scores, clip_frames: int | None = None) -> NormalScores:
    clips = np.arange(len(scores)) // (clip_frames or len(scores))
    return NormalScores(scores, clips, np.zeros(len(scores)), np.abs(scores) + 1)


def autoregressive(rng: np.random.Generator, count: int, correlation: float) -> Scores:
    """Draw a series of variance 1 whose neighbours are so correlated."""
    shocks = rng.normal(size=count) * math.sqrt(1 - correlation**2)
    series = np.empty(count)
    series[0] = rng.normal()
    for index in range(1, count):
        series[index] = correlation * series[index - 1] + shocks[index]
    return series


# -- what the user states


def test_an_hourly_number_becomes_a_rate() -> None:
    promise = FalseAlarms.stated(None, 1, 10, otherwise=0.05)
    assert promise.rate == pytest.approx(1 / 36_000)
    assert promise.frames_needed == 35_999
    assert str(promise) == "1 false alarm an hour at 10 frames/s (2.778e-05 a frame)"
    assert str(FalseAlarms(0.01)) == "a false-alarm rate of 0.01 a frame"
    assert FalseAlarms.stated(None, None, 2, otherwise=0.05) == FalseAlarms(0.05, 2)
    assert FalseAlarms.stated(0.1, None, None, otherwise=0.05) == FalseAlarms(0.1)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ((0.1, 1.0, 1.0), "not both"),
        ((None, 1.0, None), "frames a second"),
        ((None, 7200.0, 1.0), "between 1e-12 and 1"),
        ((None, 1.0, 0.0), "a number above 0; they are 0"),
        ((None, 1.0, -2.0), "a number above 0; they are -2"),
        ((0.1, None, math.nan), "a number above 0; they are nan"),
        ((0.1, None, math.inf), "a number above 0; they are inf"),
    ],
)
def test_half_of_it_or_both_is_refused(stated: tuple[float | None, float | None, float | None], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        FalseAlarms.stated(*stated, otherwise=0.05)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, math.nan])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(InvalidInput, match="between 1e-12 and 1"):
        FalseAlarms(rate)


# -- the threshold


@given(scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), permille=st.integers(10, 900))
def test_the_threshold_is_the_smallest_that_keeps_the_promise(scores: list[float], permille: int) -> None:
    """By brute force, in whole numbers: of n + 1 exchangeable scores at most rate (n + 1) may lie above."""
    count = len(scores)
    rank = next((r for r in range(1, count + 1) if 1000 * r >= (1000 - permille) * (count + 1)), None)
    if rank is None:
        with pytest.raises(TooFewFrames, match=f"n = {count} normal frames cannot support"):
            conformal_threshold(np.asarray(scores), FalseAlarms(permille / 1000))
    else:
        assert conformal_threshold(np.asarray(scores), FalseAlarms(permille / 1000)) == sorted(scores)[rank - 1]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("law", ["normal", "heavy", "tied"])
def test_new_normal_frames_alarm_as_rarely_as_promised(rate: float, law: str) -> None:
    """Each of 4000 seeds draws a calibration set and one new frame, so the alarms are binomial; ties only lessen them.

    The same holds for p-values: p <= rate is exactly an alarm, or rarer where scores are tied.
    """
    rng = np.random.default_rng(0)
    trials, count = 4000, 150
    draws = rng.standard_cauchy((trials, count + 1)) if law == "heavy" else rng.standard_normal((trials, count + 1))
    draws = np.round(draws) if law == "tied" else draws
    alarms = significant = 0
    for draw in draws:
        alarms += draw[-1] > conformal_threshold(draw[:-1], FalseAlarms(rate))
        at_least = (draw[:-1] >= draw[-1]).sum()
        significant += (1 + at_least) / (1 + count) <= rate
    exact = math.floor(rate * (count + 1)) / (count + 1)  # for scores without ties
    spread = math.sqrt(trials * exact * (1 - exact))
    assert exact <= rate
    assert significant <= alarms < trials * exact + 4 * spread
    if law != "tied":
        assert significant == alarms > trials * exact - 4 * spread


def test_equal_scores_do_not_alarm() -> None:
    assert conformal_threshold(np.full(200, 0.5), FalseAlarms(0.01)) == 0.5, "alarms are scores above the threshold"


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.3, 3), (0.5, 1), (0.001, 999)])
def test_the_error_says_how_many_frames_are_enough(rate: float, needed: int) -> None:
    check_enough(needed, FalseAlarms(rate))
    with pytest.raises(TooFewFrames, match=f"n = {needed - 1} normal frames .*: at least {needed} are needed"):
        check_enough(needed - 1, FalseAlarms(rate))


def test_an_alarm_a_day_takes_a_day_of_frames() -> None:
    daily = FalseAlarms.stated(None, 1 / 24, 10, otherwise=0.01)
    with pytest.raises(TooFewFrames) as refused:
        calibrate(normal_scores(np.arange(180.0)), daily, "three minutes")
    assert str(refused.value) == (
        "n = 180 normal frames cannot support 1 false alarm a day at 10 frames/s (1.157e-06 a frame): at least 863999 "
        "are needed, 24 hours of them; add normal frames, or accept more false alarms"
    )


# -- a calibration


def test_independent_frames_are_worth_their_number() -> None:
    scores = np.random.default_rng(1).normal(size=3000)
    found = calibrate(normal_scores(scores, 300), FalseAlarms(0.02, 5), "independent")
    assert (found.count, found.clips) == (3000, 10)
    assert found.false_alarms_per_hour == pytest.approx(360)
    assert found.effective_count is not None
    assert found.effective_count > 1000
    assert found.rate_interval is not None
    assert found.rate_interval[0] < 0.02 < found.rate_interval[1] < 0.035
    assert found.left_out_rate == pytest.approx(0.02, abs=0.005)
    assert found.warnings == ()


def test_correlated_frames_are_worth_fewer_and_say_so() -> None:
    """Of an autoregressive series of correlation r, n frames say as much of the mean as n (1 - r) / (1 + r)."""
    scores = autoregressive(np.random.default_rng(2), 3000, 0.95)
    found = calibrate(normal_scores(scores), FalseAlarms(0.01), "one clip")
    assert found.effective_count == pytest.approx(3000 * 0.05 / 1.95, rel=0.6)
    assert found.left_out_rate is None
    assert any("independent ones" in warning and "takes 99" in warning for warning in found.warnings)
    assert any("one clip" in warning for warning in found.warnings)
    independent = calibrate(normal_scores(np.random.default_rng(2).permutation(scores)), FalseAlarms(0.01), "shuffled")
    assert independent.rate_interval is not None
    assert found.rate_interval is not None
    assert found.rate_interval[1] > 1.3 * independent.rate_interval[1]


def empty_scene(rng: np.random.Generator, count: int, walkers: list[int]) -> Scores:
    """Draw independent scores, and a level of its own for each walker, who stays for 30 frames."""
    scores = rng.normal(size=count)
    for start in walkers:
        scores[start : start + 30] += rng.normal(4, 1)
    return scores


def test_a_threshold_that_few_events_set_says_so() -> None:
    """Nearly all of the 2000 frames are independent, and still two walkers decide who alarms."""
    scores = empty_scene(np.random.default_rng(9), 2000, [400, 1500])
    found = calibrate(normal_scores(scores), FalseAlarms(0.01), "two walkers")
    warning = found.warnings[0]
    assert warning.startswith("few events set the threshold: the 20 highest frames say as much as")
    assert warning.endswith("calibrate on footage 6 times as long")
    assert found.rate_interval is not None
    assert found.rate_interval[0] < 0.002
    assert found.rate_interval[1] > 0.03
    assert found.effective_count is not None
    assert found.effective_count <= 2 * 100, "two events say as much as the 200 frames in which 1 % are two"
    often = empty_scene(np.random.default_rng(9), 40_000, list(range(0, 40_000, 1000)))
    assert not any(
        "few events" in warning for warning in calibrate(normal_scores(often), FalseAlarms(0.01), "").warnings
    )


def test_clips_that_differ_break_the_promise_and_say_so() -> None:
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(3 * loud, 1, 200) for loud in (0, 0, 0, 1)])
    found = calibrate(normal_scores(scores, 200), FalseAlarms(0.01), "one loud clip")
    assert found.left_out_rate is not None
    assert found.left_out_rate > 0.05
    assert any("clips differ" in warning for warning in found.warnings)
    assert found.rate_interval is not None
    assert found.rate_interval[1] > 0.05


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.85), (0.9, 0.7)])
def test_the_interval_covers_the_true_rate_of_most_thresholds(
    correlation: float, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The true rate of a threshold is known where the law of the scores is; few effective frames cover less."""
    monkeypatch.setattr("runtime.conformal.BOOTSTRAPS", 150)
    covered = 0
    for seed in range(40):
        scores = autoregressive(np.random.default_rng(seed), 1000, correlation)
        found = calibrate(normal_scores(scores), FalseAlarms(0.05), "drawn")
        assert found.rate_interval is not None
        covered += found.rate_interval[0] <= 1 - NormalDist().cdf(found.threshold) <= found.rate_interval[1]
    assert covered >= least * 40


def test_the_interval_covers_where_walkers_set_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true rate is that of a mixture of two normal distributions: a walker is seen in 30 of each 500 frames."""
    monkeypatch.setattr("runtime.conformal.FEWEST_BOOTSTRAPS", 1)
    monkeypatch.setattr("runtime.conformal.BOOTSTRAPS", 20)
    covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = empty_scene(rng, 3000, [500 * at + int(rng.integers(470)) for at in range(6)])
        found = calibrate(normal_scores(scores), FalseAlarms(0.01), "drawn")
        seen = 30 / 500
        rate = (
            1 - (1 - seen) * NormalDist().cdf(found.threshold) - seen * NormalDist(4, math.sqrt(2)).cdf(found.threshold)
        )
        assert found.rate_interval is not None
        covered += found.rate_interval[0] <= rate <= found.rate_interval[1]
    assert covered >= 0.9 * 40


def test_many_scores_are_thinned_and_the_highest_are_all_there() -> None:
    scores = np.random.default_rng(4).exponential(size=50_000)
    scores[:100] = scores.max()  # ties at the top
    found = calibrate(normal_scores(scores, 5000), FalseAlarms(0.01), "many")
    assert found.above is not None
    assert len(found.scores) <= 2 * KEPT_HIGHEST
    ordered = np.sort(scores)
    assert set(ordered[-KEPT_HIGHEST:]) <= set(found.scores)
    for score in (ordered[-50], ordered[-KEPT_HIGHEST], ordered[25_000], -1.0, 1e9):
        exact = (1 + (scores >= score).sum()) / 50_001
        assert exact <= found.p_value(float(score)) <= 1.02 * exact
    assert found.p_value(float(ordered[-50])) == (1 + (scores == scores.max()).sum()) / 50_001
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_maps_give_the_scale_of_heat_maps() -> None:
    maps = np.random.default_rng(5).random((50, 4, 6), np.float32)
    lows, peaks = map_range(maps)
    found = calibrate(
        NormalScores(np.arange(50.0), np.zeros(50, int), lows.astype(float), peaks.astype(float)),
        FalseAlarms(0.1),
        "maps",
    )
    assert found.map_low == pytest.approx(np.median(np.median(maps.reshape(50, -1), axis=1)))
    assert found.map_threshold == pytest.approx(np.sort(maps.max(axis=(1, 2)))[45])  # ceil(0.9 * 51) = 46th


def test_scores_alone_take_the_scale_of_another_calibration() -> None:
    scores = NormalScores(np.arange(50.0), np.zeros(50, int))
    with pytest.raises(InvalidInput, match="calibrate with frames"):
        calibrate(scores, FalseAlarms(0.1), "scores")
    own = calibrate(normal_scores(np.arange(50.0)), FalseAlarms(0.1), "frames")
    found = calibrate(scores, FalseAlarms(0.1), "scores", own)
    assert (found.map_low, found.map_threshold) == (own.map_low, own.map_threshold)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(wrong: float) -> None:
    scores = np.arange(50.0)
    scores[7] = wrong
    with pytest.raises(InvalidInput, match="the score of frame 8 is"):
        calibrate(normal_scores(scores), FalseAlarms(0.1), "broken")


def test_a_constant_score_is_no_failure() -> None:
    found = calibrate(normal_scores(np.full(60, 0.5), 20), FalseAlarms(0.1), "constant")
    assert (found.threshold, found.left_out_rate) == (0.5, 0.0)
    assert found.rate_interval is not None
    assert found.rate_interval[0] == 0 < found.rate_interval[1] < 1, "three clips do not rule out higher scores"


# -- events


def test_frames_in_a_row_are_one_event_and_a_clip_ends_it() -> None:
    high = np.zeros(1000, bool)
    high[[*range(100, 110), *range(495, 505)]] = True
    joined, cut = (Events.of(high, np.repeat([0, 1], [first, 1000 - first])) for first in (1000, 500))
    assert (joined.frames, joined.worth) == (20, 2)
    assert cut.frames == 20
    assert cut.worth == pytest.approx(20**2 / (10**2 + 5**2 + 5**2))
    assert Events.of(high[105:106], np.zeros(1, int)) == Events(1, 1)


def test_independent_frames_are_an_event_each() -> None:
    high = np.random.default_rng(10).random(5000) < 0.01
    found = Events.of(high, np.zeros(5000, int))
    assert found.worth > 0.9 * found.frames


@pytest.mark.parametrize(
    ("events", "low", "high"), [(1, 0.0253, 5.572), (2, 0.2422, 7.225), (5, 1.623, 11.668), (20, 12.217, 30.888)]
)
def test_the_interval_of_events_is_that_of_a_poisson_count(events: int, low: float, high: float) -> None:
    """Garwood's table; the approximation is worst for one event."""
    found = Events(events, events).interval(0.01)
    assert found[0] == pytest.approx(0.01 * low / events, rel=0.02, abs=2e-4)
    assert found[1] == pytest.approx(0.01 * high / events, rel=0.01)
    assert Events(1, 1).interval(0.5)[1] == 1, "a rate is no more than 1"


@pytest.mark.parametrize(("shape", "median"), [(1.0, math.log(2)), (2.0, 1.6783), (10.0, 9.6687)])
def test_gamma_quantiles(shape: float, median: float) -> None:
    assert gamma_quantile(0.5, shape) == pytest.approx(median, rel=0.02)


# -- the bootstrap


def test_blocks_are_longer_the_more_neighbours_are_alike() -> None:
    rng = np.random.default_rng(6)
    ranks = [np.argsort(np.argsort(autoregressive(rng, 2000, r))) for r in (0.0, 0.7, 0.97)]
    lengths = [block_length(each) for each in ranks]
    assert lengths[0] < 4 < lengths[1] < lengths[2] < 2000 / 3
    assert block_length(np.zeros(100, int)) == 1
    assert block_length(np.arange(5)) == 1


def test_drawn_frames_keep_their_neighbours_and_their_clips() -> None:
    clips = np.repeat([0, 1, 2], [50, 30, 20])
    bootstrap = BlockBootstrap(np.array([0, 50, 80]), np.array([50, 30, 20]), np.array([10.0, 10.0, 10.0]))
    rng = np.random.default_rng(7)
    drawn = [bootstrap.draw(rng) for _ in range(300)]
    follows = np.concatenate([np.diff(each) == 1 for each in drawn])
    assert follows.mean() == pytest.approx(0.9, abs=0.04)  # nine of ten begin no block; a clip's last goes to its first
    assert {len(each) for each in drawn} <= {
        a + b + c for a in (20, 30, 50) for b in (20, 30, 50) for c in (20, 30, 50)
    }
    counts = np.bincount(np.concatenate(drawn), minlength=100)
    assert counts.min() > 0.6 * counts.mean(), "every frame is drawn as often as any"
    assert len(clips) == 100


def test_blocks_are_found_clip_by_clip() -> None:
    found = BlockBootstrap.of(np.random.default_rng(8).permutation(90), np.repeat([3, 1, 2], 30))
    assert (found.starts.tolist(), found.lengths.tolist()) == ([0, 30, 60], [30, 30, 30])
    assert (found.blocks < 8).all()
