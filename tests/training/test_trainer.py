"""Runs of a few steps: what they leave behind, that they repeat, and that an interrupted one goes on."""

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tests.training.tiny import parts, recipe
from training.autoencoders.deep import Deep
from training.autoencoders.denoising import Denoising
from training.autoencoders.plain import Plain
from training.config import Recipe, parse_recipe
from training.data import Place
from training.errors import RunError
from training.trainer import FINAL_RATE, Batches, Learner, commit, environment, load_run, train

State = dict[str, Tensor]


def started(**settings: Any) -> Recipe:  # noqa: ANN401
    return recipe("plain", train=settings)


def checkpoint(run: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return found


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """Record the weights after every step."""
    found: list[State] = []
    after = Learner.on_train_batch_end

    def spy(self: Learner, *arguments: object) -> None:
        after(self, *arguments)
        found.append({name: value.clone() for name, value in self.autoencoder.state_dict().items()})

    monkeypatch.setattr(Learner, "on_train_batch_end", spy)
    return found


def averaged(steps: list[State], decay: float) -> State:
    """Return the moving average, which starts at the first weights."""
    average = steps[0]
    for weights in steps[1:]:
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights.items()}
    return average


def break_down(monkeypatch: pytest.MonkeyPatch, *, after: int, validating: bool) -> None:
    """Let the loss fail once it has been asked for `after` times, in training or in validation."""
    loss, asked = Plain.loss, itertools.count()

    def failing(self: Plain, frames: Tensor) -> Any:  # noqa: ANN401
        if self.training != validating and next(asked) >= after:
            raise RuntimeError("power failure")
        return loss(self, frames)

    monkeypatch.setattr(Plain, "loss", failing)


# -- what a run leaves behind


def test_a_run_folder_says_what_was_run_and_keeps_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = started(steps=12, validate_every=4)
    best = train(chosen, parts(), tmp_path / "runs" / "one", resume=False)
    run = tmp_path / "runs" / "one"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "nothing is left elsewhere"
    assert {path.name for path in run.iterdir()} == {"config.yaml", "environment.json", "checkpoints", "tensorboard"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert best == run / "checkpoints" / "best.ckpt"
    assert parse_recipe(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), "run") == chosen
    facts = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert facts["libraries"]["torch"] == torch.__version__
    assert facts["threads"] == 1
    assert checkpoint(run, "last")["global_step"] == 12

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"train/loss", "validation/loss", "lr-AdamW"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("validation/loss")] == [3, 7, 11]


@pytest.mark.parametrize(("total", "every"), [(3, 10), (10, 4), (8, 4)])
def test_the_last_step_is_validated_wherever_it_falls(tmp_path: Path, total: int, every: int) -> None:
    train(started(steps=total, validate_every=every), parts(), tmp_path / "run", resume=False)
    assert checkpoint(tmp_path / "run", "last")["global_step"] == total
    load_run(tmp_path / "run")


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(recipe("variational", seed=seed), parts(), tmp_path / name, resume=False)
        states.append(load_run(tmp_path / name)[1].state_dict())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_the_weights_that_are_kept_are_the_average(tmp_path: Path, steps: list[State]) -> None:
    train(started(steps=5, validate_every=5, ema_decay=0.7), parts(), tmp_path / "run", resume=False)
    assert len(steps) == 5
    average = averaged(steps, 0.7)
    found, autoencoder = load_run(tmp_path / "run")
    assert found.train.ema_decay == 0.7
    assert not autoencoder.training
    for name, value in autoencoder.state_dict().items():
        assert torch.allclose(value, average[name], atol=1e-6), name
        assert not torch.allclose(value, steps[-1][name], atol=1e-6), name


def test_without_averaging_the_weights_are_those_of_the_last_step(tmp_path: Path, steps: list[State]) -> None:
    train(started(steps=5, validate_every=5, ema_decay=0), parts(), tmp_path / "run", resume=False)
    assert same(dict(load_run(tmp_path / "run")[1].state_dict()), steps[-1])


def test_the_lowest_validation_loss_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the validation get worse from the second time on."""
    loss, rounds = Plain.loss, iter(range(1000))

    def worsening(self: Plain, frames: Tensor) -> Any:  # noqa: ANN401
        found = loss(self, frames)
        if not self.training:
            found.total.add_(100 * (next(rounds) // 2))  # two batches a validation
        return found

    monkeypatch.setattr(Plain, "loss", worsening)
    train(started(steps=12, validate_every=4), parts(), tmp_path / "run", resume=False)
    assert checkpoint(tmp_path / "run", "best")["global_step"] == 4
    assert checkpoint(tmp_path / "run", "last")["global_step"] == 12


@pytest.mark.parametrize("kind", ["contractive", "convolutional", "denoising"])
def test_kinds_that_need_more_than_a_forward_pass_train_too(tmp_path: Path, kind: str) -> None:
    """Gradients within validation, statistics of batches, crops and noise."""
    train(recipe(kind), parts(), tmp_path / kind, resume=False)
    load_run(tmp_path / kind)


def test_low_precision_trains(tmp_path: Path) -> None:
    train(
        recipe("convolutional", train={"precision": "bf16-mixed", "steps": 2}), parts(), tmp_path / "run", resume=False
    )
    state = load_run(tmp_path / "run")[1].state_dict()
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in state.values())


# -- going on


def test_a_resumed_run_goes_on_at_its_step(tmp_path: Path, steps: list[State]) -> None:
    run = tmp_path / "run"
    train(started(steps=6), parts(), run, resume=False)
    before = checkpoint(run, "last")
    del steps[:]
    train(started(steps=10), parts(), run, resume=True)
    assert len(steps) == 4
    assert checkpoint(run, "last")["global_step"] == 10
    assert not same(before["state_dict"], checkpoint(run, "last")["state_dict"])
    moments = checkpoint(run, "last")["optimizer_states"][0]["state"][0]
    assert int(moments["step"]) == 10, "the optimiser went on as well"


def test_a_resumed_run_takes_the_rate_it_is_given(tmp_path: Path) -> None:
    for total, rate in ((6, 0.1), (10, 0.002)):
        train(started(steps=total, learning_rate=rate), parts(), tmp_path / "run", resume=total > 6)
    (group,) = checkpoint(tmp_path / "run", "last")["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(0.002 * FINAL_RATE), "the cosine has come down"


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, steps: list[State]) -> None:
    run = tmp_path / "run"
    best = train(started(), parts(), run, resume=False)
    before = best.read_bytes()
    del steps[:]
    assert train(started(), parts(), run, resume=True) == best
    assert steps == []
    assert best.read_bytes() == before


def test_a_run_without_a_checkpoint_starts_from_the_beginning(tmp_path: Path, steps: list[State]) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    train(started(), parts(), tmp_path / "run", resume=True)
    assert len(steps) == 6


def test_a_resumed_run_sees_other_frames_than_in_its_first_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    step = Learner.training_step

    def spy(self: Learner, frames: Tensor, batch_idx: int) -> Tensor:
        seen.append(frames.clone())
        return step(self, frames, batch_idx)

    monkeypatch.setattr(Learner, "training_step", spy)
    for resume, total in ((False, 4), (True, 8)):
        train(started(steps=total), parts(), tmp_path / "run", resume=resume)
    assert len(seen) == 8
    assert not torch.equal(torch.cat(seen[:4]), torch.cat(seen[4:]))


@pytest.mark.parametrize("validating", [False, True])
def test_a_run_that_breaks_down_saves_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[State], *, validating: bool
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        break_down(patch, after=1 if validating else 4, validating=validating)
        with pytest.raises(RuntimeError, match="power failure"):
            train(started(steps=8), parts(), run, resume=False)
    saved = checkpoint(run, "interrupted")
    assert saved["global_step"] == len(steps) == 4
    expected = averaged(steps, 0.9)
    for name, value in saved["state_dict"].items():
        assert torch.allclose(value, expected[name.removeprefix("autoencoder.")], atol=1e-6), (
            "average and weights swapped"
        )
    current = {name.removeprefix("autoencoder."): value for name, value in saved["current_model_state"].items()}
    assert same(current, steps[-1])
    del steps[:]
    train(started(steps=8), parts(), run, resume=True)
    assert len(steps) == 4
    assert checkpoint(run, "last")["global_step"] == 8
    assert not (run / "checkpoints" / "interrupted.ckpt").exists()


def test_pretraining_happens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    pretrain = Deep.pretrain

    def spy(self: Deep, batches: Any) -> None:  # noqa: ANN401
        calls.append(sum(len(frames) for frames in batches()))
        pretrain(self, batches)

    monkeypatch.setattr(Deep, "pretrain", spy)
    for resume, total in ((False, 4), (True, 6)):
        chosen = recipe("deep", autoencoder={"pretrain_epochs": 1}, train={"steps": total})
        train(chosen, parts(), tmp_path / "run", resume=resume)
    assert calls == [4 * 4], "validate_every batches are an epoch"


# -- pieces


def drawn(recipe_: Recipe, *, seed: int = 0, step: int = 0) -> list[list[Place]]:
    return list(Batches(parts().train, recipe_, seed, step))


def test_frames_are_drawn_without_replacement_pass_after_pass() -> None:
    chosen = recipe(train={"validate_every": 15, "batch_size": 4})
    batches = drawn(chosen)
    assert [len(batch) for batch in batches] == [4] * 15
    order = [place.frame for batch in batches for place in batch]
    assert sorted(order[:24]) == sorted(order[24:48]) == list(range(24))
    assert order[:24] != order[24:48]
    assert batches != drawn(chosen, seed=1)


def test_crops_grow_from_stage_to_stage_also_in_a_resumed_run() -> None:
    stages = [{"from_step": 2, "crop": 24, "batch_size": 3}, {"from_step": 4, "crop": 32, "batch_size": 1}]
    chosen = recipe("denoising", train={"validate_every": 6, "batch_size": 4, "stages": stages})
    expected = [(4, 16), (4, 16), (3, 24), (3, 24), (1, 32), (1, 32)]
    for step in (0, 3):
        sizes = [(len(batch), {place.crop for place in batch}) for batch in drawn(chosen, step=step)][: 6 - step]
        assert sizes == [(count, {crop}) for count, crop in expected[step:]]


def test_a_run_trains_through_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    loss = Denoising.loss

    def spy(self: Denoising, frames: Tensor) -> Any:  # noqa: ANN401
        if self.training:
            shapes.append(tuple(frames.shape))
        return loss(self, frames)

    monkeypatch.setattr(Denoising, "loss", spy)
    stages = [{"from_step": 3, "crop": 32, "batch_size": 2}]
    chosen = recipe("denoising", train={"steps": 5, "validate_every": 2, "stages": stages, "muon_rate": 0.01})
    train(chosen, parts(), tmp_path / "run", resume=False)
    assert shapes == [(4, 1, 16, 16)] * 3 + [(2, 1, 32, 32)] * 2


def test_every_validation_draws_the_same_and_leaves_the_training_alone() -> None:
    learner = Learner(Plain(Plain.Config(latent_dim=2), recipe().shape), recipe().train)
    before, draws = torch.get_rng_state(), []
    for _ in range(2):
        learner.on_validation_epoch_start()
        draws.append(torch.rand(3))
        learner.on_validation_epoch_end()
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    learner = Learner(
        Plain(Plain.Config(latent_dim=2), recipe().shape), recipe(train={"steps": 100, "warmup_steps": 9}).train
    )
    rates = [learner._rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == rates[9] == pytest.approx(1, abs=0.03)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == pytest.approx(FINAL_RATE)
    assert learner._rate(500) == pytest.approx(FINAL_RATE)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [([], "is no run folder: it has no config.yaml"), (["config.yaml"], "has not reached its first validation")],
)
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, files: list[str], complaint: str) -> None:
    for name in files:
        tree = recipe().model_dump(mode="json")
        (tmp_path / name).write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(RunError, match=complaint):
        load_run(tmp_path)


def test_the_environment_names_what_a_figure_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["/somewhere/bin/python", "-m", "training", "train", "my recipe.yaml"])
    facts = environment()
    assert facts["command"] == "python -m training train 'my recipe.yaml'"
    assert facts["libraries"].keys() == {"lightning", "numpy", "onnx", "onnxruntime", "torch"}
    json.dumps(facts)


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    assert commit() == "unknown"
