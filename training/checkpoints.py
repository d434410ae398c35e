"""The checkpoints of a run folder: where they are, which is the newest, and whether a recipe may go on from it."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from training.config import Recipe, read_recipe
from training.errors import RunError, TrainedOtherwise

RECIPE_FILE = "config.yaml"
BEST, LAST, INTERRUPTED = "best", "last", "interrupted"

# Keys of a recipe that a run may change as it goes on.
HARMLESS = {"memory_gib", "minimum_frames", "unreadable_share"}

# Keys of `train:` that say how long, or follow from it: these may change where a run goes on to more steps.
LENGTH = {"steps", "warmup_steps", "validate_every"}


def checkpoint_path(run: Path, name: str) -> Path:
    """Return where a checkpoint is kept."""
    return run / "checkpoints" / f"{name}.ckpt"


@rank_zero_only  # with several GPUs the first process makes the folder before the others start
def check_run(run: Path, *, resume: bool) -> None:
    """Raise RunError where a run would be overwritten, or where there is none to go on with."""
    if run.exists() and not resume:
        raise RunError(f"{run} exists: go on with --resume, name another with --run, or remove it")
    if resume and not run.is_dir():
        raise RunError(f"--resume: there is no run {run}; name it with --run, or start it without --resume")


def newest_checkpoint(run: Path, recipe: Recipe) -> tuple[Path | None, int]:
    """Return the checkpoint with the most steps, and their number; None and 0 where there is none.

    Files that were cut short as they were written are passed over. Raises RunError where all were, or where the run
    was started with another autoencoder, other data or another seed.
    """
    steps = {path: _steps(path) for name in (LAST, INTERRUPTED, BEST) if (path := checkpoint_path(run, name)).is_file()}
    if not steps:
        return None, 0
    _check_same_run(run, recipe)
    newest = max(steps, key=steps.__getitem__)
    if steps[newest] < 0:
        raise RunError(f"{newest.parent}: every checkpoint is damaged; remove {run} and train again")
    return newest, steps[newest]


def check_same_training(run: Path, recipe: Recipe) -> None:
    """Raise TrainedOtherwise where a run was not trained as this recipe says, but for going on to more steps.

    Who takes a kept model says that it was trained so; who goes on by hand may change rates on the way.
    """
    before, now = read_recipe(str(run / RECIPE_FILE)).train, recipe.train
    free = LENGTH if before.steps < now.steps else set()
    changed = [
        f"train.{key} = {value!r}" for key, value in before.model_dump().items()
        if key not in free and value != getattr(now, key)
    ]  # fmt: skip
    if changed:
        raise TrainedOtherwise(
            f"{run} was trained with {', '.join(changed)}: take the same settings, or the same and more steps; "
            "or name another folder, or remove this one"
        )


def _steps(checkpoint: Path) -> int:
    """Return how many steps a checkpoint has behind it, or -1 for a damaged one."""
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:  # noqa: BLE001 - what torch raises on damaged files has no common base
        return -1


def _check_same_run(run: Path, recipe: Recipe) -> None:
    before, now = _identity(read_recipe(str(run / RECIPE_FILE))), _identity(recipe)
    changed = [f"{key} = {before.get(key)!r}" for key in sorted(before | now) if before.get(key) != now.get(key)]
    if changed:
        raise RunError(
            f"{run} was started with {', '.join(changed)}: go on with the same recipe and the same --set, "
            "or name another run with --run"
        )


def _identity(recipe: Recipe) -> dict[str, Any]:
    """Return the keys that must stay as they were; steps, learning rate and the like may change."""
    sections = recipe.model_dump(mode="json", include={"autoencoder", "data"}, exclude={"data": HARMLESS})
    keys = {f"{section}.{key}": value for section, content in sections.items() for key, value in content.items()}
    return keys | {"seed": recipe.seed}
