"""The card says what the manifest says, and nothing else."""

from pathlib import Path

import pytest

from runtime.manifest import Metric
from tests.training.conftest import Exported
from training.card import CAPTIONS, markdown, tables

pytestmark = pytest.mark.xdist_group("exported")


def card(exported: Exported, name: str) -> str:
    return (exported.folder / name / "README.md").read_text(encoding="utf-8")


def metric(name: str, value: float, method: str = "this model", protocol: str = "clipped", unit: str = "dB") -> Metric:
    return Metric(name=name, value=value, unit=unit, data_set="Set12", protocol=protocol, method=method)


def test_the_card_of_a_scorer_says_its_threshold_and_where_it_fails(exported: Exported) -> None:
    text = card(exported, "scorer")
    assert text.startswith("# scorer\n\nnothing that anybody should use\n")
    assert "| kind | convolutional autoencoder, version 1 |" in text
    assert "| tasks | reconstruct, score, encode |" in text
    assert "| frames | 24 x 16 (others are scaled), grey |" in text
    assert "for a false-alarm rate of 0.1 a frame |" in text
    assert "| calibrated on | 40 normal frames held out from training" in text
    assert "## Where it fails\n\nIt has seen one square.\n" in text
    assert "python -m training make tiny --data DATA" in text
    assert "Made at commit `" in text


def test_the_card_of_a_denoiser_takes_any_size_and_names_no_latent(exported: Exported) -> None:
    text = card(exported, "denoiser")
    assert "| frames | any size, colour |" in text
    assert "latent_dim" not in text
    assert "threshold" not in text
    assert "Where it fails" not in text


@pytest.mark.parametrize("name", ["scorer", "sampler", "denoiser"])
def test_every_picture_in_the_folder_is_in_the_card_and_the_other_way_round(exported: Exported, name: str) -> None:
    text, folder = card(exported, name), exported.folder / name
    pictures = {path.name for path in folder.iterdir() if path.suffix in {".jpg", ".png"}}
    assert pictures == {file for file in CAPTIONS if f"]({file})" in text}
    assert pictures


def test_the_card_names_no_machine(exported: Exported) -> None:
    for name in exported.recipes:
        assert str(exported.folder) not in card(exported, name)
        assert str(Path.home()) not in card(exported, name)


def test_figures_stand_in_one_table_for_each_protocol() -> None:
    found = tables([
        metric("PSNR", 30.456), metric("SSIM", 0.9, unit=""), metric("PSNR", 20, "noisy input"),
        metric("PSNR", 31, protocol="not clipped"),
    ])  # fmt: skip
    assert found == {
        "Set12: clipped": [
            {"": "this model", "PSNR (dB)": 30.456, "SSIM": 0.9},
            {"": "noisy input", "PSNR (dB)": 20.0},
        ],
        "Set12: not clipped": [{"": "this model", "PSNR (dB)": 31.0}],
    }
    assert markdown(found["Set12: clipped"]) == (
        "|  | PSNR (dB) | SSIM |\n|---|---|---|\n| this model | 30.46 | 0.9 |\n| noisy input | 20 |  |"
    )
