"""Recipes: the shipped ones parse, the misspelt and the contradictory are refused with a cure."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from runtime.manifest import Manifest, Task
from tests.training.tiny import recipe
from training.autoencoders.base import kinds
from training.config import (
    AnomalyCheck,
    DenoisingCheck,
    Recipe,
    ReconstructionCheck,
    ScoreConfig,
    TrainConfig,
    parse_recipe,
    read_recipe,
    shipped,
    write_recipe,
)
from training.data import DataConfig, Source
from training.errors import ConfigError

FRAMES = {"path": "test"}


def complaint(*overrides: str, name: str = "walkway") -> str:
    with pytest.raises(ConfigError) as caught:
        read_recipe(name, overrides)
    return str(caught.value)


# -- the shipped recipes


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_recipe_parses_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    found = read_recipe(name)
    assert found.name == name
    assert len(found.description) > 20
    write_recipe(found, tmp_path / "config.yaml")
    assert read_recipe(str(tmp_path / "config.yaml")) == found
    assert parse_recipe(found.model_dump(mode="json"), "a manifest") == found
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert written["train"].keys() == TrainConfig.model_fields.keys(), "defaults are written out"


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_survives_a_round_trip(kind: str) -> None:
    found = recipe(kind)
    assert type(found.autoencoder) is kinds()[kind].Config
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(found.model_dump(mode="json"))), "tests") == found


def test_a_recipe_cannot_be_changed_after_the_fact() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_recipe("walkway").train.steps = 3  # type: ignore[misc]


def test_the_version_is_one_that_a_manifest_takes() -> None:
    patterns = [model.model_json_schema()["properties"]["version"]["pattern"] for model in (Recipe, Manifest)]
    assert patterns[0] == patterns[1]
    assert "version: String should match" in complaint("version=a b")


# -- recipes that extend others


def written(path: Path, **tree: Any) -> str:  # noqa: ANN401
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return str(path)


def test_a_recipe_that_extends_another_says_only_what_differs(tmp_path: Path) -> None:
    sources = [{"path": "gate"}]
    gate = written(tmp_path / "gate.yaml", extends="walkway", name="gate", data={"sources": sources}, seed=7)
    night = written(tmp_path / "night.yaml", extends=gate, name="night", train={"steps": 9})
    expected = read_recipe("walkway", ["name=night", "seed=7", "data.sources=[{path: gate}]", "train.steps=9"])
    assert read_recipe(night) == expected
    assert read_recipe(night, ["train.steps=3"]).train.steps == 3, "an override has the last word"


def test_a_recipe_that_extends_what_is_not_there_or_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no recipe 'walkwey'"):
        read_recipe(written(tmp_path / "a.yaml", extends="walkwey"))
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    written(one, extends=str(other))
    written(other, extends=str(one))
    with pytest.raises(ConfigError, match=f"extend each other: {one} -> {other} -> {one}"):
        read_recipe(str(one))


# -- wrong keys and values


@pytest.mark.parametrize(
    ("override", "where", "near"),
    [
        ("trian.steps=3", "trian", "train"),
        ("train.step=3", "train.step", "steps"),
        ("data.hieght=3", "data.hieght", "height"),
        ("data.sources=[{path: a, scale: [1]}]", "data.sources.0.scale", "scales"),
        ("score.topshare=1", "score.topshare", "top_share"),
        ("autoencoder.latent_dims=3", "autoencoder.latent_dims", "latent_dim"),
        (
            "evaluate=[{type: anomaly, name: n, frames: {path: a}, labels: l, maskes: m}]",
            "evaluate.0.anomaly.maskes",
            "masks",
        ),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_right_one(override: str, where: str, near: str) -> None:
    assert f"{where}: no such key; did you mean {near!r}?" in complaint(override)


def test_a_misspelt_key_of_a_corruption_is_found_in_any_depth() -> None:
    noise = "{type: low_light, gian: [0.1, 0.2]}"
    override = f"autoencoder.corruption={{type: mixture, weights: [1], choices: [{{type: jpeg, noise: {noise}}}]}}"
    found = complaint(override, name="denoiser").splitlines()
    assert len(found) == 2, "one complaint for one mistake"
    assert found[1].endswith("low_light.gian: no such key; did you mean 'gain'?")


def test_a_key_unlike_any_other_gets_no_guess() -> None:
    assert complaint("train.zzz=1").endswith("train.zzz: no such key")


def test_a_key_of_another_kind_is_not_suggested() -> None:
    assert "did you mean" not in complaint("autoencoder.beta=1")


def test_every_mistake_is_named_at_once() -> None:
    found = complaint("train.step=3", "data.channels=2", "seed=-1")
    assert all(key in found for key in ("train.step", "data.channels", "seed"))


def test_an_empty_list_is_called_too_short() -> None:
    assert "data.sources: Tuple should have at least 1 item" in complaint("data.sources=[]")


def test_an_unknown_kind_names_the_nearest() -> None:
    found = complaint("autoencoder.kind=convolutionl")
    assert "autoencoder: no autoencoder kind 'convolutionl'; did you mean 'convolutional'?" in found
    assert "autoencoder: no autoencoder kind 'None'" in complaint("autoencoder={}")
    assert "autoencoder: Input should be a valid dictionary" in complaint("autoencoder=convolutional")


@pytest.mark.parametrize("window", [2, 10])
def test_a_window_without_a_middle_is_refused(window: int) -> None:
    assert f"score.window: must be odd, so that it has a middle pixel: {window - 1} or {window + 1}" in complaint(
        f"score.window={window}"
    )


# -- sections that do not fit together


@pytest.mark.parametrize(
    ("kind", "sections", "expected"),
    [
        ("plain", {"score": {}, "data": {"calibration_share": 0}}, "data.calibration_share must be above 0"),
        ("denoising", {"score": {}}, "score: the kind denoising gives no anomaly score"),
        ("plain", {"data": {"height": None, "width": None}}, "needs frames of one size; set data.height"),
        ("plain", {"data": {"crop": 8}}, "the kind plain learns whole frames"),
        ("denoising", {"data": {"crop": None}}, "set data.crop, or data.height and data.width"),
        ("denoising", {"data": {"crop": 18}}, "18 x 18 pixels; multiples of 4 are needed"),
        ("denoising", {"data": {"crop": None, "height": 16, "width": 22}}, "22 x 16 pixels; multiples of 4"),
        ("plain", {"evaluate": [{"type": "denoising", "name": "n", "frames": FRAMES}]}, "a model that can denoise"),
        ("denoising", {"evaluate": [{"type": "reconstruction", "name": "n", "frames": FRAMES}]}, "can reconstruct"),
        ("plain", {"evaluate": [{"type": "anomaly", "name": "n", "frames": FRAMES, "labels": "l"}]}, "can score"),
    ],
)  # fmt: skip
def test_what_would_fail_after_the_training_fails_before_it(kind: str, sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(kind, **sections)
    assert expected in str(caught.value)


def test_a_denoiser_takes_any_size_even_if_its_training_frames_are_scaled() -> None:
    scaled = recipe("denoising", data={"crop": None, "height": 16, "width": 24})
    assert (scaled.shape.height, scaled.shape.width) == (None, None)
    assert recipe("plain").shape.fixed == (1, 16, 24)


def test_every_check_says_what_a_model_must_be_able_to_do() -> None:
    assert ReconstructionCheck.task is Task.RECONSTRUCT
    assert DenoisingCheck.task is Task.DENOISE
    assert AnomalyCheck.task is Task.SCORE


# -- files and overrides


def test_an_override_is_a_yaml_value() -> None:
    found = read_recipe(
        "walkway", ["train.steps=7", "autoencoder.widths=[4, 8]", "score.false_alarm_rate=2e-2", "licence=x=y"]
    )
    assert found.train.steps == 7
    assert found.autoencoder.model_dump()["widths"] == (4, 8)
    assert found.score is not None
    assert found.score.false_alarm_rate == 0.02
    assert found.licence == "x=y"
    assert found.data == read_recipe("walkway").data


def test_an_override_may_open_a_section_that_is_absent_or_null() -> None:
    assert read_recipe("camera", ["score=null", "score.window=3"]).score == ScoreConfig(window=3)
    assert read_recipe("digits", ["score.window=3", "data.calibration_share=0.1"]).score == ScoreConfig(window=3)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps", "--set train.steps: write it as section.key=value"),
        ("name.first=x", "--set name.first=x: name is no section"),
        ("train.steps=[", "'[' is no YAML value"),
    ],
)
def test_an_override_that_cannot_be_read_is_repeated(override: str, expected: str) -> None:
    assert expected in complaint(override)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [", "while parsing"),
        (b"name: \xff\xfe", "can't decode|unacceptable|invalid"),
        (b"- a\n- b\n", "a recipe is a mapping of sections"),
        (b"", "a recipe is a mapping of sections"),
        (b"name: x\n", "autoencoder: Field required"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_by_name(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        read_recipe(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["walkwey", "no/such/file.yaml", "."])
def test_a_missing_recipe_lists_the_shipped_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no recipe '{name}': give a YAML file or one of camera, denoiser"):
        read_recipe(name)


@pytest.mark.parametrize("model", [TrainConfig, ScoreConfig, DataConfig, Source, Recipe])
def test_numbers_are_bounded(model: type[BaseModel]) -> None:
    """A number without a bound is a mistake waiting for its first negative."""
    for name, field in model.model_fields.items():
        if field.annotation in {int, float, int | None}:
            assert field.metadata, f"{model.__name__}.{name} takes any number"
