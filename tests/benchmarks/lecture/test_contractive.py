"""What is equal at equal error, what noise moves, and the whole part on tiny sets."""

import json

import pytest
import torch
from torch import Tensor, nn

from benchmarks.lecture import contractive as part
from benchmarks.lecture.contractive import (
    COMPARED,
    MOVED,
    NORM,
    SIGMA,
    Finding,
    Plan,
    at_error,
    contractive,
    moved_by_noise,
    nearest_to,
)
from benchmarks.lecture.course import Course
from benchmarks.lecture.page import Section


def finding(error: float, norm: float) -> Finding:
    return Finding(f"{error:g}", error, torch.ones(3), norm, error / 100, 90)


def test_what_is_measured_at_an_error_lies_between_the_neighbours() -> None:
    rungs = [finding(20, 1.0), finding(10, 3.0), finding(5, 4.0)]
    norm = COMPARED[NORM]
    assert at_error(15, rungs, norm) == pytest.approx(2.0)
    assert at_error(5, rungs, norm) == pytest.approx(4.0)
    assert at_error(4.9, rungs, norm) is None
    assert at_error(21, rungs, norm) is None
    assert at_error(15, rungs, COMPARED[MOVED]) == pytest.approx(15)
    assert nearest_to(finding(8, 0), rungs) is rungs[1]


class Scale(nn.Module):
    """A code that is the frame, so many times."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def encode(self, frames: Tensor) -> Tensor:
        return self.factor * frames.flatten(1)


def test_a_code_that_is_only_smaller_is_moved_as_much() -> None:
    """Noise has the length sigma sqrt(n), two frames of white noise are sqrt(2 n) apart."""
    frames = torch.randn(300, 1, 10, 20)
    found = [moved_by_noise(Scale(factor), frames) for factor in (1.0, 0.01)]  # type: ignore[arg-type]
    assert found[0] == pytest.approx(SIGMA / 2**0.5, rel=0.02)
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_the_part_compares_at_equal_error(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "QUICK", Plan((0.5,), 20, (4, 20), 6, 100))
    section = Section("Contraction", course.folder / "contractive", "tiny")
    contractive(course, section)
    section.write()
    every, beside = json.loads((section.folder / "figures.json").read_text())["tables"].values()
    assert [row[""] for row in every] == ["plain, 4 steps", "plain, 20 steps", "λ = 0.5"]
    assert every[2][NORM] < every[1][NORM], "the penalty contracts"
    assert beside[0][""] == "λ = 0.5"
    for name in COMPARED:
        assert {name, f"{name}, plain"} <= beside[0].keys()
    assert {path.name for path in section.folder.glob("*.png")} == {"norms.png", "spectra.png"}
