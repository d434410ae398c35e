"""The laws that the benchmark draws from are what it says, and shares of alarms are counted clip by clip."""

import numpy as np
import pytest

from benchmarks.calibration import EmptyScene, Gaussian, Judged, judge, synthetic
from runtime.conformal import FalseAlarms, NormalScores, calibrate
from runtime.devices import Device
from runtime.model import Model
from tests.model_folders import write_clip_scorer
from training.data import Frames


def test_a_law_has_the_correlation_and_the_spread_it_says() -> None:
    law = Gaussian("test", clips=200, frames=100, correlation=0.8, shift=0.5)
    drawn = law.draw(np.random.default_rng(0))
    scores = drawn.scores.reshape(200, 100)
    within = scores - scores.mean(axis=1, keepdims=True)
    assert np.corrcoef(within[:, 1:].ravel(), within[:, :-1].ravel())[0, 1] == pytest.approx(0.8, abs=0.05)
    assert scores.var() == pytest.approx(1.25, abs=0.1)
    assert law.rate(2.0) == pytest.approx((scores > 2.0).mean(), abs=0.02)
    assert np.array_equal(np.bincount(drawn.clips), np.full(200, 100))


def test_an_empty_scene_has_walkers_as_often_and_as_high_as_it_says() -> None:
    law = EmptyScene("test", clips=20, frames=20_000, every=500)
    drawn = law.draw(np.random.default_rng(1))
    assert [law.rate(at) for at in (1, 3, 5)] == pytest.approx(
        [(drawn.scores > at).mean() for at in (1, 3, 5)], rel=0.1
    )
    high = drawn.scores.reshape(20, 20_000) > 3
    assert high[:, 0].mean() < 0.5, "clips begin at any time"
    assert (high[:, 1:] & high[:, :-1]).mean() > 10 * high.mean() ** 2, "a walker stays"


def test_independent_scores_have_the_promised_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.calibration.SEEDS", 10)
    monkeypatch.setattr("runtime.conformal.BOOTSTRAPS", 100)
    row = synthetic(Gaussian("independent", clips=4, frames=250, correlation=0, shift=0))
    assert row["true rate, mean (%)"] == pytest.approx(1, abs=0.5)
    assert row["left-out rate, mean (%)"] == pytest.approx(1, abs=0.5)
    assert float(row["warned of more than a single clip (%)"]) < 60


def test_alarms_are_counted_with_an_interval() -> None:
    scores = np.arange(100.0)
    calibration = calibrate(NormalScores(scores, np.zeros(100, int), scores, scores), FalseAlarms(0.1), "test")
    judged = Judged(np.repeat(["a", "b"], 100), np.concatenate([scores, scores + 50]), calibration)
    row = judged.row("all")
    assert row["alarm (%)"] == pytest.approx(100 * (9 + 59) / 200)  # above 90: 91..99, and 91..149
    assert float(row["95 % from"]) <= float(row["alarm (%)"]) <= float(row["to"])
    assert judged.of("a").row("a")["alarm (%)"] == 9
    assert row["p <= 0.5 (%)"] == pytest.approx(100 * (50 + 99) / 200, abs=1)


def test_normal_frames_of_a_clip_model_are_those_at_the_end_of_their_clip(
    tmp_path_factory: pytest.TempPathFactory, cpu: Device
) -> None:
    model = Model.open(write_clip_scorer(tmp_path_factory.mktemp("models") / "clips"), cpu)
    calibration = model.manifest.calibration
    assert calibration is not None
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 24, 1), np.uint8)
    frames = Frames(list(pixels), [str(index) for index in range(12)], ["a"] * 6 + ["b"] * 6)
    normal = np.array([True] * 5 + [False] + [True] * 6)
    judged = judge(model, calibration, frames, normal)
    expected = [float(model.run(pixels[None, end - 4 : end])[0].anomaly_score) for end in (4, 5, 10, 11, 12)]  # type: ignore[arg-type]
    assert judged.scores == pytest.approx(expected)
    assert judged.clips.tolist() == ["a", "a", "b", "b", "b"]
