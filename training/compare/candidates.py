"""Every kind of autoencoder that can score, trained with the settings that it suggests, exported and kept."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import ClearwatchError
from runtime.manifest import MANIFEST_FILE, Task, read_manifest
from training.autoencoders.base import Autoencoder, ClipAutoencoder, build, kinds
from training.compare.detectors import Exported
from training.compare.order import Order
from training.compare.parts import Parts, too_short
from training.config import Recipe, parse_recipe
from training.data import Split
from training.errors import RunError, TrainedOtherwise, TrainingError
from training.export import export
from training.graph import to_unit
from training.runs import finish
from training.trainer import load_run

ORDER_FILE, PACE_FILE = "frames.json", "pace.json"
BATCH = 16
SHOWN = 16  # frames on a model's card, and that its graph is checked with
WARM_STEPS, TIMED_STEPS = 2, 5
WINDOW = 11  # pixels that errors are averaged over: as large as a person
WORST = 0.0001  # share of the map that is the score: one place, the worst


def find_candidates(order: Order) -> dict[str, type[Autoencoder[Any]]]:
    """Return the kinds that were asked for, or all; raise RunError naming those there are."""
    known = kinds()
    unknown = sorted(set(order.kinds) - set(known))
    if unknown:
        raise RunError(f"--kinds: no kind {unknown[0]!r}; there are {', '.join(known)}")
    return {name: kind for name, kind in known.items() if not order.kinds or name in order.kinds}


def check_kept(order: Order, parts: Parts) -> None:
    """Raise RunError where the folder keeps runs of other frames: what they learnt might be measured on now."""
    kept = order.out / ORDER_FILE
    now = {"frames": parts.fingerprint, "seed": order.seed}
    if kept.is_file():
        before = json.loads(kept.read_text(encoding="utf-8"))
        if before != now:
            raise RunError(
                f"{order.out} keeps runs of other frames, another --every, --pixels or --seed: frames that they have "
                "learnt might be measured on now; name another folder with --out, or remove it"
            )
    elif order.out.exists() and any(order.out.iterdir()):
        raise RunError(f"{order.out} is not empty, and keeps no comparison; name another folder with --out")
    order.out.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(now) + "\n", encoding="utf-8")


class LeftOut(Exception):
    """Why a kind is not compared."""


def train_candidate(order: Order, parts: Parts, name: str, kind: type[Autoencoder[Any]]) -> Exported:
    """Train (or go on, or take what is kept) and export. Raises LeftOut where the kind cannot, with the reason.

    Raises TrainedOtherwise where what is kept was trained for longer: the table would tell of another training.
    """
    if Task.SCORE not in kind.tasks:
        raise LeftOut("it gives no anomaly score")
    try:
        return _trained(order, parts, name, kind)
    except TrainedOtherwise:
        raise
    except (ClearwatchError, TrainingError, ValueError) as error:  # pydantic's is a ValueError
        raise LeftOut(" ".join(str(error).split())) from error


def _trained(order: Order, parts: Parts, name: str, kind: type[Autoencoder[Any]]) -> Exported:
    run, folder = order.out / "runs" / name, order.out / "models" / name
    recipe = _recipe(order, parts, name, kind, steps=1)
    autoencoder = build(recipe.autoencoder, recipe.shape)
    if isinstance(autoencoder, ClipAutoencoder) and not parts.suffice(autoencoder.time, order.false_alarm_rate):
        raise LeftOut(too_short(autoencoder.time))
    steps = order.steps or max(1, round(60 * order.minutes / _seconds_a_step(recipe, parts, run)))
    recipe = _recipe(order, parts, name, kind, steps)
    minutes = finish(recipe, parts.learn, run) / 60
    if not _is_exported(recipe, folder):
        export(recipe, load_run(run)[1], _for_export(parts.learn), folder)
    return Exported(folder, minutes)


def _for_export(learn: Split) -> Split:
    """Return the parts with a few frames to validate: what kinds measure of themselves there may take minutes."""
    chosen = np.linspace(0, len(learn.validation) - 1, min(SHOWN, len(learn.validation))).astype(int)
    return Split(learn.train, learn.validation.subset(chosen.tolist()), learn.calibration)


def _recipe(order: Order, parts: Parts, name: str, kind: type[Autoencoder[Any]], steps: int) -> Recipe:
    pooling = {} if issubclass(kind, ClipAutoencoder) else {"window": WINDOW, "top_share": WORST}
    passes = math.ceil(len(parts.learn.train) / BATCH)
    tree = {
        "name": name,
        "description": f"Of a comparison of kinds on {order.source}.",
        "licence": "yours",
        "seed": order.seed,
        "autoencoder": kind.suggest(order.steps),
        "data": parts.data,
        "train": {"steps": steps, "batch_size": BATCH, "warmup_steps": min(200, steps // 10), "ema_decay": 0,
                  "validate_every": max(passes, steps // 10)},
        "score": {"false_alarm_rate": order.false_alarm_rate, **pooling},
    }  # fmt: skip
    return parse_recipe(tree, name)


def _seconds_a_step(recipe: Recipe, parts: Parts, run: Path) -> float:
    """Measure how long a step takes, once: a second call shall come to the same number of steps.

    By the processor's time, all threads at work: other programs shall not decide how much a kind learns.
    """
    kept = run / PACE_FILE
    if kept.is_file():
        return float(json.loads(kept.read_text(encoding="utf-8"))["seconds_a_step"])
    run.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng([]):
        seconds = float(np.median(list(_timed_steps(recipe, parts))[WARM_STEPS:]))
    kept.write_text(json.dumps({"seconds_a_step": seconds}) + "\n", encoding="utf-8")
    return seconds


def _timed_steps(recipe: Recipe, parts: Parts) -> Iterator[float]:
    autoencoder = build(recipe.autoencoder, recipe.shape)
    optimiser = torch.optim.AdamW(autoencoder.parameters())
    batch = to_unit(torch.from_numpy(parts.learn.train.batch(range(min(BATCH, len(parts.learn.train))))))
    for _ in range(WARM_STEPS + TIMED_STEPS):
        start = time.process_time()
        loss = autoencoder.loss(batch).total
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield (time.process_time() - start) / torch.get_num_threads()


def _is_exported(recipe: Recipe, folder: Path) -> bool:
    """Tell whether the folder holds this recipe's model; a recipe tells the steps too."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    return bool(read_manifest(folder).provenance.config == recipe.model_dump(mode="json"))
