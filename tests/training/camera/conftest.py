"""Fewer pairs than a real camera gives: a hundred tell as much of a test's noise."""

import pytest

from training.camera import pairs


@pytest.fixture(autouse=True)
def _few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "TRAINING_PAIRS", 150)
    monkeypatch.setattr(pairs, "HELD_OUT_PAIRS", 60)
