"""Detectors of every sort are asked in one way, frame by frame or all at once."""

import numpy as np
import pytest

from runtime.images import Pixels
from tests.training.tiny import frames
from training.compare.detectors import Baseline, Detector, Exported, baselines
from training.compare.ladder import Ladder
from training.compare.parts import Parts
from training.data import full_windows
from training.errors import RunError

pytestmark = pytest.mark.xdist_group("compared")


@pytest.mark.parametrize("baseline", baselines(frames(40)), ids=lambda baseline: baseline.name)
def test_a_baseline_says_of_a_frame_what_its_statistic_says_of_the_clip(baseline: Baseline) -> None:
    normal, test = frames(40), frames(12, clips=1, seed=5)
    mean = normal.batch(range(40))[..., 0].mean(0)
    whole = baseline._statistic.score(test.batch(range(12))[..., 0], mean)
    at = full_windows(test, 3)
    assert baseline.scores(test, at).tolist() == pytest.approx(whole[2:].tolist(), rel=1e-6)
    assert baseline.minutes is baseline.bytes is None


def test_an_exported_kind_gives_the_scores_of_its_graph(ladder: Ladder, parts: Parts) -> None:
    detectors = [rung.detector for rung in ladder.rungs if isinstance(rung.detector, Exported)]
    assert [detector.name for detector in detectors] == ["contractive", "plain"]
    for detector in detectors:
        graph = detector.model.run(parts.test.batch(range(20))).anomaly_score
        assert graph is not None
        assert detector.scores(parts.test, range(20)).tolist() == pytest.approx(graph.tolist(), rel=1e-5)
        assert detector.time == 1
        path = ladder.order.out / "models" / detector.name / "autoencoder.onnx"
        assert detector.bytes == path.stat().st_size


def test_scores_that_are_no_numbers_are_refused(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = next(rung.detector for rung in ladder.rungs if isinstance(rung.detector, Exported))
    broken = detector.model.run(np.zeros((1, 32, 32, 1), np.uint8))
    object.__setattr__(broken, "anomaly_score", np.array([np.nan], np.float32))
    monkeypatch.setattr(detector.model, "run", lambda _: broken)
    with pytest.raises(RunError, match="contractive: its scores are no numbers"):
        detector.score(np.zeros((1, 32, 32, 1), np.uint8))


def test_time_is_that_of_one_frame_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, ...]] = []

    class Slow(Detector):
        name, time = "slow", 2

        def score(self, seen: Pixels) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
            shown.append(seen.shape)
            clock.append(clock[-1] + (0.5 if len(shown) == 1 else 0.002))
            return np.zeros(len(seen))

    clock = [0.0]
    monkeypatch.setattr("training.compare.detectors.time.perf_counter", lambda: clock[-1])
    assert Slow().milliseconds(frames(12)) == pytest.approx(2), "the first, which warms up, does not count"
    assert set(shown) == {(1, 2, 16, 24, 1)}
