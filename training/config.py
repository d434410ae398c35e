"""A recipe: the YAML that says a whole training run, parsed into frozen objects that refuse misspelt keys."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, field_validator

from runtime.manifest import Frozen, ModelName
from training.autoencoders.base import AutoencoderConfig, FrameShape, find_kind
from training.data import DataConfig, Source
from training.errors import ConfigError

CONFIGS = Path(__file__).parent / "configs"


class TrainConfig(Frozen):
    """How the weights are found."""

    steps: int = Field(10_000, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="peak; a cosine brings it to a hundredth of that")
    warmup_steps: int = Field(200, ge=0)
    weight_decay: float = Field(0, ge=0)
    gradient_clip: float = Field(0, ge=0, description="largest gradient norm; 0 for none")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged weights that are exported; 0 for none")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    validate_every: int = Field(500, ge=1, description="steps between validations, which also write a checkpoint")
    loader_workers: int = Field(0, ge=0, description="processes that prepare batches; 0 suits frames in memory")
    devices: int | Literal["auto"] = Field("auto", description="GPUs a machine")
    machines: int = Field(1, ge=1, description="num_nodes of Lightning")
    threads: int | None = Field(None, ge=1, description="CPU threads; all by default")


class ScoreConfig(Frozen):
    """How reconstruction error becomes an anomaly map and a score; all of it is part of the exported graph."""

    error: Literal["squared", "absolute"] = "squared"
    window: int = Field(1, ge=1, description="pixels; errors are averaged over windows of this side")
    top_share: float = Field(1.0, gt=0, le=1, description="the score is the mean of this share of the map, the worst")
    false_alarm_rate: float = Field(0.01, gt=0, lt=1, description="of normal frames, sets the default threshold")


class ReconstructionCheck(Frozen):
    """PSNR and SSIM of reconstructions, and for a variational kind log p(x)."""

    type: Literal["reconstruction"] = "reconstruction"
    name: str = Field(description="of the data set, for the card")
    frames: Source
    limit: int | None = Field(None, ge=1, description="take this many frames, evenly spaced")


class DenoisingCheck(Frozen):
    """PSNR and SSIM after white Gaussian noise, clipped and rounded to uint8; beside classical filters."""

    type: Literal["denoising"] = "denoising"
    name: str
    frames: Source
    sigmas: tuple[float, ...] = (15, 25, 50)
    limit: int | None = Field(None, ge=1)


class AnomalyCheck(Frozen):
    """AUROC and F1 on labelled frames; beside baselines that learn nothing."""

    type: Literal["anomaly"] = "anomaly"
    name: str
    frames: Source
    labels: str = Field(description="CSV with the columns clip, frame, anomalous")
    masks: str | None = Field(None, description=".npz with masks_packed [n, h, w / 8], in the order of the labels")


Check = Annotated[ReconstructionCheck | DenoisingCheck | AnomalyCheck, Field(discriminator="type")]


class Recipe(Frozen):
    """A training run, its export and its evaluation."""

    name: ModelName
    version: str = "1"
    description: str
    limitations: str = Field("", description="where the model fails, for its card")
    licence: str = Field(description="of the weights, with what the data asks for")
    seed: int = Field(0, ge=0, lt=2**32)
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

    @property
    def shape(self) -> FrameShape:
        """Return the geometry that the autoencoder is built for."""
        return FrameShape(self.data.channels, self.data.height, self.data.width)


def shipped() -> dict[str, Path]:
    """Return the recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def read_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe or a YAML file; an override is `section.key=value` with a YAML value."""
    path = shipped().get(name_or_path, Path(name_or_path))
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no recipe {name_or_path!r}: give a YAML file or one of {', '.join(shipped())}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections")
    for override in overrides:
        _override(tree, override)
    return parse_recipe(tree, str(path))


def parse_recipe(tree: object, where: str) -> Recipe:
    """Check a recipe; raise ConfigError with every wrong key and the nearest right one."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}:\n  " + "\n  ".join(_complaints(error))) from error


def _complaints(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = str(item["loc"][-1]) if item["loc"] else ""
        near = difflib.get_close_matches(key, _known_keys(Recipe), 1) if item["type"] == "extra_forbidden" else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        yield f"{'.'.join(map(str, item['loc']))}: {item['msg']}{hint}"


def _known_keys(model: type[BaseModel]) -> list[str]:
    """Collect the field names of a config class and of the classes within it."""
    sections = (TrainConfig, DataConfig, ScoreConfig, Source)
    return [key for section in (model, *sections) for key in section.model_fields]


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"--set {override}: write it as section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {section} is no section")
    tree[last] = yaml.safe_load(text)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe, defaults included."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
