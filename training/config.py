"""A recipe: the YAML that says a whole training run, parsed into frozen objects that refuse misspelt keys."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import torch
import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from runtime.manifest import Frozen, ModelName, Task
from training.autoencoders.base import (
    Autoencoder,
    AutoencoderConfig,
    ClipAutoencoder,
    Denoiser,
    FrameShape,
    build,
    find_kind,
)
from training.data import DataConfig, Source
from training.errors import ConfigError
from training.gaussian import Measure

CONFIGS = Path(__file__).parent / "configs"


class Stage(Frozen):
    """A part of the training with crops of its own: small and many at first, large and few at last."""

    from_step: int = Field(ge=1, description="it lasts up to the next stage")
    crop: int = Field(gt=0, description="pixels, instead of data.crop")
    batch_size: int = Field(ge=1)


class TrainConfig(Frozen):
    """How the weights are found."""

    steps: int = Field(10_000, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1)
    stages: tuple[Stage, ...] = Field((), description="growing crops, in the order of their steps")
    learning_rate: float = Field(1e-3, gt=0, description="peak; a cosine brings it to a hundredth of that")
    muon_rate: float | None = Field(None, gt=0, description="peak of Muon, for wide weights; absent: Adam for all")
    warmup_steps: int = Field(200, ge=0)
    weight_decay: float = Field(0, ge=0)
    gradient_clip: float = Field(0, ge=0, description="largest gradient norm; 0 for none")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged weights that are exported; 0 for none")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    validate_every: int = Field(500, ge=1, description="steps between validations, which also write a checkpoint")
    loader_workers: int = Field(0, ge=0, description="processes that prepare batches; 0 suits frames in memory")
    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="GPUs a machine")
    machines: int = Field(1, ge=1, description="num_nodes of Lightning")
    threads: int | None = Field(None, ge=1, description="CPU threads; all by default")

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        steps = [stage.from_step for stage in stages]
        if steps != sorted(set(steps)):
            raise ValueError(f"from_step must grow from stage to stage; found {steps}")
        return stages


class ScoreConfig(Frozen):
    """How reconstruction error becomes an anomaly map and a score; all of it is part of the exported graph."""

    error: Literal["squared", "absolute"] = "squared"
    window: int = Field(1, ge=1, description="pixels, odd; errors are averaged over windows of this side")
    top_share: float = Field(1.0, gt=0, le=1, description="the score is the mean of this share of the map, the worst")
    latent: Measure | None = Field(None, description="score the code by the Gaussian of normal codes, not the map")
    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="of normal frames, sets the default threshold")

    @field_validator("window")
    @classmethod
    def _has_a_middle(cls, window: int) -> int:
        if window % 2 == 0:
            raise ValueError(f"must be odd, so that it has a middle pixel: {window - 1} or {window + 1}")
        return window


class ReconstructionCheck(Frozen):
    """PSNR and SSIM of reconstructions."""

    task: ClassVar = Task.RECONSTRUCT
    type: Literal["reconstruction"] = "reconstruction"
    name: str = Field(description="of the data set, for the card")
    frames: Source
    limit: int | None = Field(None, ge=1, description="take this many frames, evenly spaced")


class DenoisingCheck(Frozen):
    """PSNR and SSIM after white Gaussian noise, clipped and rounded to uint8; beside classical filters."""

    task: ClassVar = Task.DENOISE
    type: Literal["denoising"] = "denoising"
    name: str
    frames: Source
    sigmas: tuple[float, ...] = (15, 25, 50)
    limit: int | None = Field(None, ge=1)


class AnomalyCheck(Frozen):
    """AUROC and F1 on labelled frames; beside baselines that learn nothing."""

    task: ClassVar = Task.SCORE
    type: Literal["anomaly"] = "anomaly"
    name: str
    frames: Source
    labels: str = Field(description="CSV with the columns clip, frame, anomalous")
    masks: str | None = Field(None, description=".npz with masks_packed [n, h, w / 8], in the order of the labels")


Check = Annotated[ReconstructionCheck | DenoisingCheck | AnomalyCheck, Field(discriminator="type")]


class Recipe(Frozen):
    """A training run, its export and its evaluation."""

    name: ModelName
    version: str = Field("1", pattern=r"^[0-9A-Za-z.+-]{1,32}$")  # as the manifest has it
    description: str
    limitations: str = Field("", description="where the model fails, for its card")
    licence: str = Field(description="of the weights, with what the data asks for")
    seed: int = Field(0, ge=0, lt=2**32)
    start_from: str | None = Field(None, description="model folder to begin with: its channels are kept and added to")
    autoencoder: SerializeAsAny[AutoencoderConfig]
    data: DataConfig
    train: TrainConfig = TrainConfig()
    score: ScoreConfig | None = Field(None, description="absent: the model has no task score")
    evaluate: tuple[Check, ...] = ()

    @field_validator("autoencoder", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the YAML holds
        if not isinstance(value, dict):
            return value
        return find_kind(str(value.get("kind"))).Config.model_validate(value)

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        conflicts = list(_conflicts(self))
        if conflicts:
            raise ValueError("; ".join(conflicts))
        return self

    @property
    def kind(self) -> type[Autoencoder[Any]]:
        """The class of the autoencoder."""
        return find_kind(self.autoencoder.kind)

    @property
    def shape(self) -> FrameShape:
        """The geometry that the autoencoder is built for; a denoiser takes frames of any size."""
        if issubclass(self.kind, Denoiser):
            return FrameShape(self.data.channels)
        return FrameShape(self.data.channels, self.data.height, self.data.width)


def _conflicts(recipe: Recipe) -> Iterator[str]:
    """Yield what would fail after hours of training: sections that are right by themselves and not together."""
    name, tasks, data = recipe.autoencoder.kind, recipe.kind.tasks, recipe.data
    if recipe.score is not None:
        yield from _score_conflicts(recipe, recipe.score)
    for index, check in enumerate(recipe.evaluate):
        if check.task not in tasks or (check.task is Task.SCORE and recipe.score is None):
            yield f"evaluate.{index}: a check of type {check.type} needs a model that can {check.task}"
    if issubclass(recipe.kind, Denoiser) and data.pixels is not None:
        yield f"data.pixels: the kind {name} takes frames of any size; leave it out"
    if issubclass(recipe.kind, Denoiser):
        yield from _crop_conflicts(recipe)
    elif issubclass(recipe.kind, ClipAutoencoder) and (recipe.score is None or _pooled(recipe.score)):
        yield f"score: the kind {name} scores by itself; give false_alarm_rate, and nothing else"
    elif data.pixels is None and (data.height is None or data.width is None):
        yield f"data: the kind {name} needs frames of one size; set data.height and data.width, or data.pixels"
    elif data.crop is not None or recipe.train.stages:
        yield f"data.crop, train.stages: the kind {name} learns whole frames; leave them out"


def _score_conflicts(recipe: Recipe, score: ScoreConfig) -> Iterator[str]:
    name, tasks = recipe.autoencoder.kind, recipe.kind.tasks
    if Task.SCORE not in tasks:
        yield f"score: the kind {name} gives no anomaly score; leave the section out"
    if recipe.data.calibration_share == 0:
        yield "score: the threshold comes from held-out normal frames; data.calibration_share must be above 0"
    if score.latent is not None and Task.ENCODE not in tasks:
        yield f"score.latent: the kind {name} has no code that a Gaussian could be fitted to; leave it out"


def _pooled(score: ScoreConfig) -> bool:
    return score != ScoreConfig(false_alarm_rate=score.false_alarm_rate)


def _crop_conflicts(recipe: Recipe) -> Iterator[str]:
    data = recipe.data
    with torch.device("meta"):  # only the geometry: no memory, no random numbers
        denoiser = build(recipe.autoencoder, recipe.shape)
    height, width = data.crop or data.height, data.crop or data.width
    if height is None or width is None:
        yield "data: a batch needs frames of one size; set data.crop, or data.height and data.width"
        return
    if not isinstance(denoiser, Denoiser):
        return
    sizes = {"data": (height, width)}
    sizes |= {f"train.stages.{index}": (stage.crop, stage.crop) for index, stage in enumerate(recipe.train.stages)}
    for where, (tall, wide) in sizes.items():
        if tall % denoiser.stride or wide % denoiser.stride:
            yield f"{where}: it learns frames of {wide} x {tall} pixels; multiples of {denoiser.stride} are needed"


def shipped() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def read_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe or a YAML file; an override is `section.key=value` with a YAML value."""
    tree = _read_tree(name_or_path)
    for override in overrides:
        _override(tree, override)
    return parse_recipe(tree, name_or_path)


def _read_tree(name_or_path: str, extending: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read YAML, over the recipe that it extends."""
    if name_or_path in extending:
        raise ConfigError(f"recipes that extend each other: {' -> '.join((*extending, name_or_path))}")
    path = shipped().get(name_or_path, Path(name_or_path))
    try:
        tree = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"no recipe {name_or_path!r}: give a YAML file or one of {', '.join(shipped())}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections")
    base = tree.pop("extends", None)
    return tree if base is None else _merged(_read_tree(str(base), (*extending, name_or_path)), tree)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge sections key by key; everything else is replaced."""
    merged = base | changes
    for key in base.keys() & changes.keys():
        if isinstance(base[key], dict) and isinstance(changes[key], dict):
            merged[key] = _merged(base[key], changes[key])
    return merged


def parse_recipe(tree: object, where: str) -> Recipe:
    """Check a recipe; raise ConfigError with every wrong key and the nearest right one."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}:\n  " + "\n  ".join(_complaints(error, tree))) from error


def _complaints(error: ValidationError, tree: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the YAML holds
    items = error.errors()
    for item in items:
        location = item["loc"]
        if item["type"] == "too_short" and any(_below(other["loc"], location) for other in items):
            continue  # a list is called too short when its items are wrong
        where = ".".join(map(str, location)) + ": " if location else ""
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(location[-1]), _keys_at(location[:-1], tree), 1)
            yield f"{where}no such key" + (f"; did you mean {near[0]!r}?" if near else "")
        else:
            yield where + item["msg"].removeprefix("Value error, ")


def _below(location: tuple[int | str, ...], place: tuple[int | str, ...]) -> bool:
    return len(location) > len(place) and location[: len(place)] == place


def _keys_at(location: tuple[int | str, ...], tree: Any) -> set[str]:  # noqa: ANN401
    """Return the keys that may stand at a place of the recipe."""
    models: set[type[BaseModel]] = {Recipe}
    if location[:1] == ("autoencoder",):
        models, location = {find_kind(tree["autoencoder"]["kind"]).Config}, location[1:]
    for part in location:  # an index of a list or the tag of a union leads no deeper
        fields = [found.model_fields[part] for found in models if isinstance(part, str) and part in found.model_fields]
        models = {inner for field in fields for inner in _models_in(field.annotation)} or models
    return {key for found in models for key in found.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any type there is
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: write it as section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {section} is no section")
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: {text!r} is no YAML value") from error


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, defaults included."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
