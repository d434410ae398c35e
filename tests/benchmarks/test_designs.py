"""The tables that designs are chosen by, on tiny clips."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import anomalies, designs
from benchmarks.anomalies.designs import LOOKS, MOTION, Span
from runtime.images import ImageFormat, encode
from tests.training.test_pseudo_anomalies import walk
from training.autoencoders.spatiotemporal import SpatiotemporalConfig
from training.pseudo_anomalies import Thing


def test_every_table_is_made_without_a_test_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        folder = tmp_path / "ped2" / "train" / f"{seed:02d}"
        folder.mkdir(parents=True)
        for index, frame in enumerate(walk(seed)):
            (folder / f"{index:03d}.png").write_bytes(encode(frame[..., None], ImageFormat.PNG))
    figures = tmp_path / "figures.json"
    monkeypatch.setattr(designs, "SPANS", (Span(3, 2), Span(6, 3)))
    monkeypatch.setattr(
        anomalies.designs, "SETTINGS", SpatiotemporalConfig(speed_width=4, speed_blocks=0, speed_steps=20)
    )
    monkeypatch.setattr(sys, "argv", ["designs", "--data", str(tmp_path), "--json", str(figures)])
    designs.main()
    motion, looks, fused, capped = json.loads(figures.read_text())["tables"].values()
    assert [row[""] for row in motion][:: len(designs.MOMENTS)] == list(MOTION)
    assert all(row["2.0 times as fast"] > 50 for row in motion)
    assert [(row[""], row["frames"]) for row in looks] == [(name, frames) for frames in (9, 31) for name in LOOKS]
    assert all(row[str(thing)] > 70 for row in looks for thing in Thing)
    assert [row["cost of looks (nats)"] for row in fused] == list(designs.COSTS)
    stands = [row["all that stand"] for row in fused]
    assert np.all(np.diff(stands) <= 0)  # the dearer looks are, the less is seen of what stands
    assert len(capped) == len(designs.CAPS)
    stands = [row["all that stand"] for row in capped]
    assert stands[-1] > stands[0] + 10  # and if they may say more, more is
