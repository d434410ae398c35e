"""Runs that are trained once and kept: gone on with where they were interrupted, with what they cost."""

import json
import time
from pathlib import Path

from training.checkpoints import check_same_training, newest_checkpoint
from training.config import Recipe
from training.data import Split
from training.trainer import train

COST_FILE = "cost.json"


def finish(recipe: Recipe, parts: Split, run: Path) -> float:
    """Train up to the last step, if it is not there yet; return the processor's seconds of all attempts.

    Raises RunError where the folder keeps a run of another autoencoder, other data or another seed, or one that was
    trained otherwise; more steps than it was trained for are added to it.
    """
    checkpoint, steps = newest_checkpoint(run, recipe)
    if checkpoint is not None:
        check_same_training(run, recipe)
    cost = run / COST_FILE
    seconds = float(json.loads(cost.read_text(encoding="utf-8"))["cpu_seconds"]) if cost.is_file() else 0.0
    if steps >= recipe.train.steps and cost.is_file():
        return seconds
    start = time.process_time()
    try:
        train(recipe, parts, run, resume=True)
    finally:  # also where Ctrl-C ends it
        seconds += time.process_time() - start
        run.mkdir(parents=True, exist_ok=True)
        cost.write_text(json.dumps({"cpu_seconds": seconds}) + "\n", encoding="utf-8")
    return seconds
