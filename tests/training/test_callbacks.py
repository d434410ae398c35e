"""The bar over the steps; what the averaged weights do is tested with the trainer, in whole runs."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from tests.training.tiny import parts, recipe
from training.callbacks import AveragedWeights, StepBar
from training.trainer import Learner, train


def test_the_bar_shows_steps_device_and_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(), parts(), tmp_path / "run", resume=False)
    shown = capsys.readouterr().err
    assert "training on cpu" in shown
    assert "6/6" in shown
    assert "Tip" not in shown, "Lightning advertises"


def test_the_bar_of_a_resumed_run_starts_where_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe(train={"steps": 4}), parts(), tmp_path / "run", resume=False)
    capsys.readouterr()
    train(recipe(train={"steps": 8}), parts(), tmp_path / "run", resume=True)
    assert "| 4/8 " in capsys.readouterr().err


def test_other_processes_than_the_first_draw_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    trainer = Trainer(max_steps=3, logger=False, enable_checkpointing=False, barebones=False, callbacks=[StepBar()])
    capsys.readouterr()
    learner: Learner = Learner.__new__(Learner)
    bar = trainer.progress_bar_callback
    assert isinstance(bar, StepBar)
    bar.setup(trainer, learner, "fit")
    bar.on_train_start(trainer, learner)
    bar.on_train_end(trainer, learner)
    assert capsys.readouterr().err == ""


def test_an_exception_outside_of_a_validation_swaps_nothing() -> None:
    averaged = AveragedWeights(0.9)
    averaged.on_exception(Trainer.__new__(Trainer), Learner.__new__(Learner), RuntimeError())
