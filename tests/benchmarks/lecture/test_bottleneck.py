"""The whole part on tiny sets: every kind at every width, the deep pair, and the must."""

import json

import pytest

from benchmarks.lecture import bottleneck as part
from benchmarks.lecture.bottleneck import COLUMN, Plan, bottleneck
from benchmarks.lecture.course import Course
from benchmarks.lecture.page import Section


def test_every_kind_is_measured_at_every_width(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "QUICK", Plan((2, 5), 2, (3,), 2, epochs=2, pretrain_epochs=1))
    monkeypatch.setattr(part, "DEEP", part.DEEP | {"hidden_sizes": [16, 12, 8]})
    section = Section("Bottleneck", course.folder / "bottleneck", "tiny")
    bottleneck(course, section)
    section.write()
    tables = json.loads((course.folder / "bottleneck" / "figures.json").read_text())["tables"]
    digits, footage, deep, musts = tables.values()
    assert [row["latent_dim"] for row in digits] == ["2", "5"]
    assert digits[0].keys() == {"latent_dim", "PCA", "plain", "deep", "convolutional", "variational"}
    assert digits[1]["PCA"] < digits[0]["PCA"], "more components leave less"
    assert len(footage) == 1
    assert [row[COLUMN] for row in deep if str(row[""]).startswith("published")] == [13.87, 3.0]
    pretrained, found = deep[2], musts[0]
    assert pretrained[""] == "deep, from Boltzmann machines"
    assert pretrained["CPU minutes of training"] > 0
    assert found["ok"] == "NO"
    assert found["found"] == min(row[COLUMN] for row in deep[1:4])
    assert {path.name for path in section.folder.glob("*.png")} == {"curve-mnist.png", "curve-ped2.png", "digits.png"}
