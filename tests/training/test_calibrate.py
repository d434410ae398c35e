"""The threshold keeps its promise on scores that are exchangeable, and says when it cannot promise."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.devices import Device
from runtime.model import Model
from tests.model_folders import normal_frames, write_scorer
from training.calibrate import KEPT_SCORES, calibrate, check_enough, conformal_threshold, in_batches, outputs_of
from training.data import Frames
from training.errors import DataError

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory, cpu: Device) -> Model:
    return Model.open(write_scorer(tmp_path_factory.mktemp("models") / "scorer"), cpu)


def as_frames(pixels: Pixels) -> Frames:
    found = Frames()
    for index, frame in enumerate(pixels):
        found.add("clip", f"clip/{index}.png", frame)
    return found


# -- the threshold


@given(
    scores=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60),
    permille=st.integers(10, 900),
)
def test_the_threshold_is_the_smallest_that_keeps_the_promise(scores: list[float], permille: int) -> None:
    """By brute force, in whole numbers: of n + 1 exchangeable scores at most rate (n + 1) may lie above."""
    count = len(scores)
    rank = next((r for r in range(1, count + 1) if 1000 * r >= (1000 - permille) * (count + 1)), None)
    if rank is None:
        with pytest.raises(DataError, match=f"{count} normal frames cannot support"):
            conformal_threshold(np.asarray(scores), permille / 1000)
    else:
        assert conformal_threshold(np.asarray(scores), permille / 1000) == sorted(scores)[rank - 1]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("heavy", [False, True])
def test_new_normal_frames_alarm_as_rarely_as_promised(rate: float, *, heavy: bool) -> None:
    """Each trial draws its own calibration set, so the trials are independent and their alarms binomial."""
    rng = np.random.default_rng(0)
    trials, count = 4000, 150
    draws = rng.standard_cauchy((trials, count + 1)) if heavy else rng.standard_normal((trials, count + 1))
    alarms = sum(draw[-1] > conformal_threshold(draw[:-1], rate) for draw in draws)
    exact = np.floor(rate * (count + 1)) / (count + 1)  # for scores without ties
    spread = (trials * exact * (1 - exact)) ** 0.5
    assert abs(alarms - trials * exact) < 4 * spread
    assert exact <= rate


def test_equal_scores_do_not_alarm() -> None:
    threshold = conformal_threshold(np.full(200, 0.5), 0.01)
    assert threshold == 0.5, "alarms are scores above the threshold"


@pytest.mark.parametrize(("rate", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.3, 3), (0.5, 1), (0.001, 999)])
def test_the_error_says_how_many_frames_are_enough(rate: float, needed: int) -> None:
    check_enough(needed, rate)
    with pytest.raises(DataError, match=f"{needed - 1} normal frames .*: at least {needed} are needed"):
        check_enough(needed - 1, rate)
    with pytest.raises(DataError, match=f"at least {needed} are needed"):
        conformal_threshold(np.zeros(0), rate)


# -- a whole model


def test_a_calibration_says_what_normal_frames_score(scorer: Model) -> None:
    pixels = normal_frames(50, scorer.manifest.input, seed=5)
    found = calibrate(scorer, as_frames(pixels), 0.1, "fifty frames")
    outputs = scorer.run(pixels)
    assert outputs.anomaly_score is not None
    assert outputs.anomaly_map is not None
    scores = np.sort(outputs.anomaly_score.astype(np.float64))
    assert found.scores == pytest.approx(scores)
    assert found.count == 50
    assert found.threshold == pytest.approx(scores[45])  # ceil(0.9 * 51) = 46th
    assert (scores > found.threshold).sum() <= 5
    peaks = np.sort(outputs.anomaly_map.max(axis=(1, 2)))
    assert found.map_threshold == pytest.approx(peaks[45])
    assert found.map_low == pytest.approx(np.median(np.median(outputs.anomaly_map, axis=(1, 2))))
    assert (found.source, found.false_alarm_rate) == ("fifty frames", 0.1)
    assert found.p_value(scores[-1] + 1) == pytest.approx(1 / 51)


def test_many_scores_are_thinned_and_keep_their_quantiles(scorer: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.calibrate.KEPT_SCORES", 11)
    pixels = normal_frames(60, scorer.manifest.input, seed=6)
    found = calibrate(scorer, as_frames(pixels), 0.1, "sixty")
    scores = scorer.run(pixels).anomaly_score
    assert scores is not None
    assert len(found.scores) == 11
    assert found.count == 60
    assert found.scores == pytest.approx(np.quantile(scores.astype(np.float64), np.linspace(0, 1, 11)))
    assert KEPT_SCORES >= 1000


def test_too_few_frames_are_refused(scorer: Model) -> None:
    with pytest.raises(DataError, match=r"8 normal frames .* at least 9 are needed; add frames, raise data\.calib"):
        calibrate(scorer, as_frames(normal_frames(8, scorer.manifest.input)), 0.1, "eight")


# -- batches


def test_frames_are_run_in_batches_and_in_order(scorer: Model) -> None:
    pixels = normal_frames(35, scorer.manifest.input)
    batches = list(in_batches(as_frames(pixels), "test", lambda stack: stack))
    assert [len(stack) for stack in batches] == [16, 16, 3]
    assert np.array_equal(np.concatenate(batches), pixels)
    scores = [outputs.anomaly_score for outputs in outputs_of(scorer, as_frames(pixels), "test")]
    assert [len(part) for part in scores if part is not None] == [16, 16, 3]
