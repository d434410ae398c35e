"""Kinds are taken from the register, trained once, exported once, and left out with a reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from training import runs
from training.autoencoders.base import AutoencoderConfig, kinds
from training.autoencoders.plain import Plain, PlainConfig
from training.compare import candidates
from training.compare.candidates import LeftOut, check_kept, find_candidates, train_candidate
from training.compare.order import Order
from training.compare.parts import Parts, read_parts
from training.errors import RunError
from training.runs import COST_FILE

pytestmark = pytest.mark.xdist_group("compared")


def refuse(*_: object, **__: object) -> Path:
    pytest.fail("done again")


def test_the_kinds_are_those_of_the_register(order: Order) -> None:
    assert find_candidates(replace(order, kinds=())) == kinds()
    assert list(find_candidates(order)) == ["contractive", "denoising", "plain"]
    with pytest.raises(RunError, match=r"no kind 'plane'; there are contractive, .*variational"):
        find_candidates(replace(order, kinds=("plain", "plane")))


def test_a_kept_kind_is_neither_trained_nor_exported_again(
    kept: Order, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", refuse)
    monkeypatch.setattr(candidates, "export", refuse)
    check_kept(kept, parts)
    again = train_candidate(kept, parts, "plain", kinds()["plain"])
    assert again.minutes is not None
    assert again.minutes > 0


def test_more_steps_go_on_from_those_that_are_kept(kept: Order, parts: Parts) -> None:
    found = train_candidate(replace(kept, steps=9), parts, "plain", kinds()["plain"])
    assert found.model.manifest.provenance.config["train"]["steps"] == 9  # type: ignore[call-overload, index]
    assert (kept.out / "runs" / "plain" / COST_FILE).is_file()


def test_fewer_steps_than_a_kind_has_behind_it_are_refused(kept: Order, parts: Parts) -> None:
    with pytest.raises(RunError, match=r"runs/plain was trained with train.steps = 6.*: .* or name another folder"):
        train_candidate(replace(kept, steps=3), parts, "plain", kinds()["plain"])


def test_other_false_alarms_set_another_threshold_and_train_nothing(
    kept: Order, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", refuse)
    found = train_candidate(replace(kept, false_alarm_rate=0.2), parts, "plain", kinds()["plain"])
    assert found.model.manifest.calibration is not None
    assert found.model.manifest.calibration.false_alarm_rate == 0.2


def test_minutes_become_steps_once(kept: Order, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("training.compare.candidates.time.process_time", lambda: float(next(clock)))
    asked: list[int] = []

    def finish(recipe: object, *_: object) -> float:
        asked.append(recipe.train.steps)  # type: ignore[attr-defined]
        return 60.0

    monkeypatch.setattr(candidates, "finish", finish)
    for _ in range(2):
        found = train_candidate(replace(kept, steps=None, minutes=0.1), parts, "plain", kinds()["plain"])
    assert asked == [6, 6], "a step took a second by this clock, and was timed once"
    assert found.minutes == 1
    assert next(clock) == 14


def test_frames_that_may_have_been_learnt_from_are_refused(kept: Order, tmp_path: Path) -> None:
    other = replace(kept, seed=1)
    with pytest.raises(RunError, match=r"out keeps runs of other frames, .* name another folder with --out"):
        check_kept(other, read_parts(other))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(RunError, match="mine is not empty, and keeps no comparison"):
        check_kept(replace(kept, out=tmp_path / "mine"), read_parts(kept))


def test_a_kind_without_a_score_is_left_out(kept: Order, parts: Parts) -> None:
    with pytest.raises(LeftOut, match="it gives no anomaly score"):
        train_candidate(kept, parts, "denoising", kinds()["denoising"])


def test_a_kind_of_clips_is_left_out_where_clips_are_short(kept: Order, parts: Parts) -> None:
    with pytest.raises(LeftOut, match="it looks at 31 frames in a row, and too few clips have as many"):
        train_candidate(replace(kept, false_alarm_rate=0.05), parts, "spatiotemporal", kinds()["spatiotemporal"])


def test_a_kind_that_suggests_nonsense_is_left_out_with_the_reason(kept: Order, parts: Parts) -> None:
    class Hopeless(Plain):
        @classmethod
        def suggest(cls, steps: int | None = None) -> AutoencoderConfig:  # noqa: ARG003
            return PlainConfig(latent_dim=0)

    with pytest.raises(LeftOut, match="latent_dim Input should be greater than or equal to 1"):
        train_candidate(kept, parts, "hopeless", Hopeless)
