"""The training loop, on Lightning: it knows batches, steps, checkpoints and devices, and no kind of autoencoder."""

import importlib
import itertools
import json
import logging
import math
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from training.autoencoders.base import Autoencoder, build
from training.callbacks import AveragedWeights, StepBar
from training.checkpoints import BEST, INTERRUPTED, LAST, RECIPE_FILE, checkpoint_path, newest_checkpoint
from training.config import Recipe, TrainConfig, read_recipe, write_recipe
from training.data import Examples, Frames, Place, Split
from training.errors import RunError
from training.muon import Muon
from training.weights import grow, read_weights

LIBRARIES = ("lightning", "numpy", "onnx", "onnxruntime", "torch")
FINAL_RATE = 0.01  # of the peak learning rate
LOG_EVERY = 10  # steps
VALIDATION_BATCHES = 50  # at the most


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
        self._fork = torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])
        self._fork.__enter__()
        torch.manual_seed(0)

    def on_validation_epoch_end(self) -> None:
        """Go back to the training's random state."""
        self._fork.__exit__(None, None, None)

    def on_train_batch_end(self, *_: object) -> None:
        """Validate after the last step too, wherever in an epoch it falls: only validations write checkpoints."""
        if self.global_step >= self.config.steps:
            self.trainer.should_stop = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with this recipe's peak rates, not with those that the interrupted schedule began with."""
        for schedule in checkpoint["lr_schedulers"]:
            del schedule["base_lrs"]

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union is private
        """AdamW or Muon, with a linear warm-up and a cosine down to a hundredth of the peak."""
        optimiser = self._optimiser()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimiser(self) -> torch.optim.Optimizer:
        config, weights = self.config, self.autoencoder.parameters()
        if config.muon_rate is not None:
            return Muon(weights, config.muon_rate, config.learning_rate, weight_decay=config.weight_decay)
        return torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / (self.config.warmup_steps + 1))
        progress = min(1.0, step / self.config.steps)
        return warm * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero: the momentum of a dead filter fades into them, and they slow a CPU many times.

    Threads inherit it from the one that starts them: enter before the first of them is.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@_without_denormals()
def train(recipe: Recipe, split: Split, run: Path, *, resume: bool) -> Path:
    """Train until the recipe's last step and return the checkpoint of the lowest validation loss.

    The run folder keeps config.yaml, environment.json, checkpoints/ and TensorBoard's files. Ctrl-C saves
    checkpoints/interrupted.ckpt and ends the process; `resume` goes on from the checkpoint with the most steps, or
    from the beginning where the run has none. Raises RunError where that run had another autoencoder or other data,
    and what weights.grow raises where it cannot start from the model that the recipe names.
    """
    config = recipe.train
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it tells of its other products
    checkpoint, steps = newest_checkpoint(run, recipe) if resume else (None, 0)
    seed = (recipe.seed + steps) % 2**32  # a resumed run goes on to other frames and other noise
    seed_everything(seed, workers=True, verbose=False)
    trainer = _trainer(config, run)
    if trainer.is_global_zero:
        run.mkdir(parents=True, exist_ok=True)
        write_recipe(recipe, run / RECIPE_FILE)
        (run / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n", encoding="utf-8")
    autoencoder = build(recipe.autoencoder, recipe.shape)
    seed += trainer.global_rank
    if checkpoint is None:
        if recipe.start_from is not None:
            grow(autoencoder, read_weights(Path(recipe.start_from)))
        earlier = _loader(split.train, recipe, Batches(split.train, recipe, seed))
        autoencoder.pretrain(lambda: (batch.float() / 255 for batch in earlier))
    loader = _loader(split.train, recipe, Batches(split.train, recipe, seed, steps))
    with warnings.catch_warnings():
        # Lightning advises more loader processes; frames in memory need none. The rest is its own housekeeping.
        warnings.filterwarnings("ignore", module="lightning|torch")
        validation = _loader(split.validation, recipe)
        trainer.fit(Learner(autoencoder, config), loader, validation, ckpt_path=checkpoint, weights_only=True)
    return checkpoint_path(run, BEST)


def _trainer(config: TrainConfig, run: Path) -> Trainer:
    folder = checkpoint_path(run, BEST).parent
    callbacks: list[Callback] = [
        ModelCheckpoint(folder, BEST, monitor="validation/loss", enable_version_counter=False),
        ModelCheckpoint(folder, LAST, enable_version_counter=False),  # also where the loss did not fall
        OnExceptionCheckpoint(folder, INTERRUPTED),
        LearningRateMonitor("step"),
        StepBar(),
    ]
    if config.ema_decay:
        callbacks.append(AveragedWeights(config.ema_decay))
    return Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        precision=config.precision,
        devices=config.devices,
        num_nodes=config.machines,
        use_distributed_sampler=False,  # its epochs would be passes over the set
        gradient_clip_val=config.gradient_clip or None,
        limit_val_batches=VALIDATION_BATCHES,
        num_sanity_val_steps=0,
        inference_mode=False,  # a contractive loss takes gradients in validation too
        callbacks=callbacks,
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        enable_model_summary=False,
        log_every_n_steps=LOG_EVERY,
    )


class Batches(Sampler[list[Place]]):
    """The frames of every batch, drawn without replacement, pass after pass, and the crops of the stage.

    An epoch is `validate_every` batches, whatever the size of the set.
    """

    def __init__(self, frames: Frames, recipe: Recipe, seed: int, step: int = 0) -> None:
        self._config = recipe.train
        self._crop = recipe.data.crop
        self._order = _passes(len(frames), torch.Generator().manual_seed(seed))
        self._step = step

    def __len__(self) -> int:
        return self._config.validate_every

    def __iter__(self) -> Iterator[list[Place]]:
        """Yield the batches of one epoch."""
        for _ in range(len(self)):
            crop, size = self._crop, self._config.batch_size
            for stage in self._config.stages:
                if stage.from_step <= self._step:
                    crop, size = stage.crop, stage.batch_size
            self._step += 1  # before the yield: nobody asks for what comes after the last batch
            yield [Place(frame, crop) for frame in itertools.islice(self._order, size)]


def _passes(count: int, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _loader(frames: Frames, recipe: Recipe, batches: Batches | None = None) -> "DataLoader[Tensor]":
    examples = Examples(frames, recipe.data)
    if batches is None:
        # Validation prepares its few batches itself: other processes would not draw the same crops every time.
        return DataLoader(examples, recipe.train.batch_size)
    workers = recipe.train.loader_workers
    return DataLoader(examples, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0)


def load_run(run: Path) -> tuple[Recipe, Autoencoder[Any]]:
    """Return the recipe and the trained autoencoder of a run folder, in evaluation mode, on the CPU.

    The weights are those of the lowest validation loss, averaged where the recipe averages.
    """
    path = run / RECIPE_FILE
    if not path.is_file():
        raise RunError(f"{run} is no run folder: it has no {RECIPE_FILE}")
    recipe = read_recipe(str(path))
    checkpoint = checkpoint_path(run, BEST)
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
        "libraries": {name: str(importlib.import_module(name).__version__) for name in LIBRARIES},
        "commit": commit(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "gpus": list(_gpus()),
    }


def _gpus() -> Iterator[str]:
    for index in range(torch.cuda.device_count()):
        yield torch.cuda.get_device_name(index)


def commit() -> str:
    """Return the commit of the working tree, with `+` where it has changes; `unknown` outside of git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],  # noqa: S607
            capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
        )  # fmt: skip
    except FileNotFoundError:  # git is not installed
        return "unknown"
    return described.stdout.strip() or "unknown"
