"""Which checkpoint a run goes on from, and which recipe may go on with it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tiny import recipe
from training.checkpoints import (
    BEST,
    INTERRUPTED,
    LAST,
    RECIPE_FILE,
    check_run,
    check_same_training,
    checkpoint_path,
    newest_checkpoint,
)
from training.config import Recipe, write_recipe
from training.errors import RunError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give a run folder of the tiny recipe, without a checkpoint."""
    write_recipe(recipe(), tmp_path / RECIPE_FILE)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def save(run: Path, name: str, steps: int) -> None:
    torch.save({"global_step": steps, "state_dict": {"weight": torch.zeros(3)}}, checkpoint_path(run, name))


@pytest.mark.parametrize("newest", [BEST, LAST, INTERRUPTED])
def test_the_checkpoint_with_the_most_steps_counts_whatever_the_clock_says(run: Path, newest: str) -> None:
    save(run, newest, 9)
    for name in {BEST, LAST, INTERRUPTED} - {newest}:
        save(run, name, 5)
    assert newest_checkpoint(run, recipe()) == (checkpoint_path(run, newest), 9)


def test_a_run_without_checkpoints_has_none(run: Path, tmp_path: Path) -> None:
    assert newest_checkpoint(run, recipe()) == (None, 0)
    assert newest_checkpoint(tmp_path / "nowhere", recipe()) == (None, 0)


def test_a_checkpoint_that_was_cut_short_is_passed_over(run: Path) -> None:
    save(run, BEST, 4)
    save(run, LAST, 8)
    path = checkpoint_path(run, LAST)
    path.write_bytes(path.read_bytes()[:100])
    checkpoint_path(run, INTERRUPTED).write_bytes(b"")
    assert newest_checkpoint(run, recipe()) == (checkpoint_path(run, BEST), 4)
    checkpoint_path(run, BEST).write_bytes(b"")
    with pytest.raises(RunError, match=r"every checkpoint is damaged; remove .* and train again"):
        newest_checkpoint(run, recipe())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (recipe(seed=1), "seed = 0"),
        (recipe(autoencoder={"latent_dim": 9}), "autoencoder.latent_dim = 8"),
        (recipe("contractive"), "autoencoder.kind = 'plain'"),
        (recipe(data={"validation_share": 0.3}), "data.validation_share = 0.1"),
    ],
)
def test_another_recipe_does_not_go_on_with_it(run: Path, changed: Recipe, named: str) -> None:
    save(run, LAST, 4)
    with pytest.raises(RunError, match="go on with the same recipe and the same --set") as caught:
        newest_checkpoint(run, changed)
    assert f"{run} was started with " in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"steps": 99, "learning_rate": 0.1}},
        {"data": {"memory_gib": 20}},
        {"score": {}},
        {"description": "new"},
    ],
)
def test_what_does_not_change_the_weights_or_the_split_may_change(run: Path, changes: dict[str, Any]) -> None:
    save(run, LAST, 4)
    assert newest_checkpoint(run, recipe(**changes))[1] == 4


@pytest.mark.parametrize(
    ("train", "named"),
    [
        ({"learning_rate": 0.02}, "train.learning_rate = 0.01"),
        ({"batch_size": 8, "steps": 60}, "train.batch_size = 4"),
        ({"steps": 5}, "train.steps = 6"),
        ({"warmup_steps": 3}, "train.warmup_steps = 0"),
    ],
)
def test_a_model_is_not_said_to_be_trained_as_it_was_not(run: Path, train: dict[str, Any], named: str) -> None:
    with pytest.raises(RunError, match=f"was trained with {named}: take the same settings, or the same and more steps"):
        check_same_training(run, recipe(train=train))


@pytest.mark.parametrize("train", [{}, {"steps": 60, "warmup_steps": 6, "validate_every": 30}])
def test_a_model_may_be_trained_for_more_steps(run: Path, train: dict[str, Any]) -> None:
    check_same_training(run, recipe(train=train))


def test_a_run_is_neither_overwritten_nor_made_up(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exists: go on with --resume, name another with --run, or remove it"):
        check_run(tmp_path, resume=False)
    with pytest.raises(RunError, match="--resume: there is no run"):
        check_run(tmp_path / "new", resume=True)
    check_run(tmp_path, resume=True)
    check_run(tmp_path / "new", resume=False)
