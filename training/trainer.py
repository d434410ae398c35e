"""The training loop, on Lightning: it knows batches, steps, checkpoints and devices, and no kind of autoencoder."""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    OnExceptionCheckpoint,
    ProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

from training.autoencoders.base import Autoencoder, build
from training.config import Recipe, TrainConfig, read_recipe, write_recipe
from training.data import Examples, Frames, Split
from training.errors import RunError

RECIPE_FILE = "config.yaml"
LIBRARIES = ("lightning", "numpy", "onnx", "onnxruntime", "torch")
FINAL_RATE = 0.01  # of the peak learning rate
LOG_EVERY = 10  # steps


class Learner(LightningModule):
    """One autoencoder with its optimiser and schedule."""

    def __init__(self, autoencoder: Autoencoder[Any], config: TrainConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = config

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning's signature
        """Return the loss of a uint8 batch [B, C, h, w]."""
        return self._loss(batch, "train")

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:  # noqa: ARG002
        """Log the loss of a held-out batch."""
        self._loss(batch, "validation")

    def _loss(self, batch: Tensor, part: str) -> Tensor:
        frames = (batch.float() / 255).contiguous(memory_format=torch.channels_last)
        losses = self.autoencoder.loss(frames)
        if part == "train" and self.global_step % LOG_EVERY:
            return losses.total  # logging costs as much as a small network's step
        named = {"loss": losses.total} | losses.parts
        self.log_dict({f"{part}/{name}": value for name, value in named.items()}, prog_bar=True, batch_size=len(batch))
        return losses.total

    def on_validation_epoch_start(self) -> None:
        """Draw the same crops and noise in every validation, and leave the training's draws alone."""
        self._fork = torch.random.fork_rng()
        self._fork.__enter__()
        torch.manual_seed(0)

    def on_validation_epoch_end(self) -> None:
        """Go back to the training's random state."""
        self._fork.__exit__(None, None, None)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union is private
        """AdamW with a linear warm-up and a cosine down to a hundredth of the peak."""
        config = self.config
        optimiser = torch.optim.AdamW(
            self.autoencoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / (self.config.warmup_steps + 1))
        progress = min(1.0, step / self.config.steps)
        return warm * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


class StepBar(ProgressBar):
    """One bar over all steps of the run, with the losses and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start where a resumed run stands."""
        super().on_train_start(trainer, pl_module)
        steps = trainer.max_steps
        self._bar = tqdm(total=steps, initial=trainer.global_step, desc="training", unit="step", mininterval=1)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ANN401
        """Show the losses as they stand; not at every step, for reading them costs more than a small step."""
        if self._bar is None or not self._bar.update(1):  # update tells whether the bar was drawn anew
            return
        shown = self.get_metrics(trainer, pl_module)
        numbers = {name: value for name, value in shown.items() if name != "v_num" and not isinstance(value, dict)}
        self._bar.set_postfix({name: f"{float(value):.4g}" for name, value in numbers.items()}, refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def train(recipe: Recipe, split: Split, run: Path, *, resume: bool) -> Path:
    """Train until the recipe's last step and return the checkpoint of the lowest validation loss.

    The run folder keeps config.yaml, environment.json, checkpoints/ and TensorBoard's files. Ctrl-C saves
    checkpoints/interrupted.ckpt; `resume` goes on from the newest checkpoint there.
    """
    config = recipe.train
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high")
    seed_everything(recipe.seed, workers=True, verbose=False)
    checkpoint = _newest_checkpoint(run) if resume else None
    run.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, run / RECIPE_FILE)
    (run / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n", encoding="utf-8")
    autoencoder = build(recipe.autoencoder, recipe.shape)
    loader = _loader(split.train, recipe, shuffled=True)
    if checkpoint is None:
        autoencoder.pretrain(lambda: (batch.float() / 255 for batch in loader))
    best = ModelCheckpoint(
        run / "checkpoints", "best", monitor="validation/loss", save_last=True, enable_version_counter=False
    )
    trainer = _trainer(config, run, best)
    with warnings.catch_warnings():
        # Lightning advises more loader processes; frames in memory need none. The rest is its own housekeeping.
        warnings.filterwarnings("ignore", module="lightning|torch")
        validation = _loader(split.validation, recipe, shuffled=False)
        trainer.fit(Learner(autoencoder, config), loader, validation, ckpt_path=checkpoint, weights_only=True)
    return Path(best.best_model_path)


def _trainer(config: TrainConfig, run: Path, best: ModelCheckpoint) -> Trainer:
    callbacks: list[Callback] = [best, StepBar(), LearningRateMonitor("step")]
    callbacks.append(OnExceptionCheckpoint(run / "checkpoints", "interrupted"))
    if config.ema_decay:
        callbacks.append(EMAWeightAveraging(decay=config.ema_decay))
    return Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        precision=config.precision,
        devices=config.devices,
        num_nodes=config.machines,
        gradient_clip_val=config.gradient_clip or None,
        limit_val_batches=50,
        num_sanity_val_steps=0,
        inference_mode=False,  # a contractive loss takes gradients in validation too
        callbacks=callbacks,
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        enable_model_summary=False,
        log_every_n_steps=LOG_EVERY,
    )


def _loader(frames: Frames, recipe: Recipe, *, shuffled: bool) -> "DataLoader[Tensor]":
    """Return batches; an epoch is `validate_every` steps, whatever the size of the set."""
    config = recipe.train
    examples = Examples(frames, recipe.data)
    sampler = None
    if shuffled:
        drawn = config.validate_every * config.batch_size
        generator = torch.Generator().manual_seed(recipe.seed)
        sampler = RandomSampler(examples, num_samples=drawn, replacement=drawn > len(examples), generator=generator)
    workers = config.loader_workers
    return DataLoader(examples, config.batch_size, sampler=sampler, num_workers=workers, drop_last=shuffled,
                      persistent_workers=workers > 0)  # fmt: skip


def _newest_checkpoint(run: Path) -> Path:
    found = sorted((run / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    going_on = [path for path in found if path.stem in {"last", "interrupted"}]
    if not going_on:
        raise RunError(f"--resume: no checkpoint under {run / 'checkpoints'}; start the run without it")
    return going_on[-1]


def load_run(run: Path) -> tuple[Recipe, Autoencoder[Any]]:
    """Return the recipe and the trained autoencoder of a run folder, in evaluation mode, on the CPU.

    The weights are those of the lowest validation loss, averaged where the recipe averages.
    """
    path = run / RECIPE_FILE
    if not path.is_file():
        raise RunError(f"{run} is no run folder: it has no {RECIPE_FILE}")
    recipe = read_recipe(str(path))
    checkpoint = run / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise RunError(f"{checkpoint} is missing: the run has not reached its first validation")
    autoencoder = build(recipe.autoencoder, recipe.shape)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    autoencoder.load_state_dict({name.removeprefix("autoencoder."): value for name, value in state.items()})
    return recipe, autoencoder.eval()


def environment() -> dict[str, Any]:
    """Return what a figure depends on besides its recipe: versions, commit, command, threads."""
    return {
        "python": sys.version.split()[0],
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "commit": commit(),
        "command": " ".join(sys.argv),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "gpus": list(_gpus()),
    }


def _gpus() -> Iterator[str]:
    for index in range(torch.cuda.device_count()):
        yield torch.cuda.get_device_name(index)


def commit() -> str:
    """Return the commit of the working tree, with `+` where it has changes; `unknown` outside of git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],  # noqa: S607
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    )  # fmt: skip
    return described.stdout.strip() or "unknown"
