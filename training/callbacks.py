"""What hangs on Lightning's loop: a bar over the steps, and averaged weights that survive Ctrl-C."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ProgressBar
from tqdm import tqdm


class StepBar(ProgressBar):
    """One bar over all steps of the run, with the losses and the time left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._shown = True

    def enable(self) -> None:
        """Draw the bar."""
        self._shown = True

    def disable(self) -> None:
        """Draw nothing: Lightning asks for it in every process but the first."""
        self._shown = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start where a resumed run stands."""
        super().on_train_start(trainer, pl_module)
        title = f"training on {trainer.strategy.root_device}"
        steps, done = trainer.max_steps, trainer.global_step
        self._bar = tqdm(total=steps, initial=done, desc=title, unit="step", mininterval=1, disable=not self._shown)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:  # noqa: ANN401
        """Show the losses as they stand; not at every step, for reading them costs more than a small step."""
        if self._bar is None or not self._bar.update(1):  # update tells whether the bar was drawn anew
            return
        shown = self.get_metrics(trainer, pl_module)
        numbers = {name: value for name, value in shown.items() if name != "v_num" and not isinstance(value, dict)}
        self._bar.set_postfix({name: f"{float(value):.4g}" for name, value in numbers.items()}, refresh=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class AveragedWeights(EMAWeightAveraging):
    """The moving average that is validated, kept and exported.

    During validation Lightning swaps it with the weights in training. A checkpoint that Ctrl-C asks for just then
    would hold the two the wrong way round, so they are swapped back first.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self._swapped = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap the average in."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap it out."""
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Swap it out before the checkpoint is written."""
        if self._swapped:
            self.on_validation_epoch_end(trainer, pl_module)
