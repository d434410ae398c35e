"""Versions on disk: written whole, never reused, in force for their own weights only, refused with the cure."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.calibrations import Calibrations, read_calibration
from runtime.conformal import FalseAlarms, NormalScores, calibrate
from runtime.errors import CalibrationInvalid, CalibrationNotFound, CalibrationNotSaved, CalibrationStale
from runtime.manifest import Calibration, CameraCalibration, Manifest, read_manifest
from tests.model_folders import write_scorer


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(write_scorer(tmp_path / "models" / "scorer"))


@pytest.fixture
def store(tmp_path: Path) -> Calibrations:
    return Calibrations(tmp_path / "calibrations")


def made(level: float = 0.0) -> Calibration:
    scores = level + np.arange(40.0)
    return calibrate(NormalScores(scores, np.zeros(40, int), scores, scores), FalseAlarms(0.1), f"level {level:g}")


def other_weights(manifest: Manifest) -> Manifest:
    graph = manifest.graphs.autoencoder.model_copy(update={"sha256": "0" * 64})
    return manifest.model_copy(update={"graphs": manifest.graphs.model_copy(update={"autoencoder": graph})})


def test_every_calibration_is_a_new_version_and_the_newest_decides(store: Calibrations, manifest: Manifest) -> None:
    with pytest.raises(CalibrationNotFound, match="no calibration for camera 'door'"):
        store.find(manifest, "door")
    first, second = store.add(manifest, "door", made()), store.add(manifest, "door", made(1))
    other = store.add(manifest, "gate", made(2))
    assert [(each.camera, each.version) for each in (first, second, other)] == [("door", 1), ("door", 2), ("gate", 1)]
    assert store.find(manifest, "door") == second
    assert (second.model, second.sha256) == ("scorer", manifest.sha256)
    assert list(store.all("scorer")) == [second, first, other]
    assert store.is_looked_up(manifest)


def test_a_number_is_never_used_again(store: Calibrations, manifest: Manifest) -> None:
    for level in range(3):
        store.add(manifest, "door", made(level))
    assert store.delete("scorer", "door", 3) == 1
    assert store.find(manifest, "door").version == 2
    assert store.add(manifest, "door", made()).version == 4
    assert store.delete("scorer", "door") == 3
    with pytest.raises(CalibrationNotFound):
        store.find(manifest, "door")
    for version in (None, 1):
        with pytest.raises(CalibrationNotFound, match="'door'"):
            store.delete("scorer", "door", version)
    assert store.add(manifest, "door", made()).version == 5


def test_other_weights_have_no_use_for_it(store: Calibrations, manifest: Manifest) -> None:
    store.add(manifest, "door", made())
    changed = other_weights(manifest)
    with pytest.raises(CalibrationStale, match=r"made for other weights of scorer .* calibrate it again"):
        store.find(changed, "door")
    again = store.add(changed, "door", made(1))
    assert store.find(changed, "door") == again
    assert store.find(manifest, "door").version == 1, "weights that are put back have their calibration again"


def test_files_that_others_put_there_are_seen_after_a_refresh(
    store: Calibrations, manifest: Manifest, tmp_path: Path
) -> None:
    assert store.in_force(manifest) == {}
    Calibrations(tmp_path / "calibrations").add(manifest, "door", made())
    assert store.in_force(manifest) == {}
    store.refresh()
    assert store.find(manifest, "door").version == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"scores": [1.0]}'])
def test_a_damaged_file_is_refused_with_the_cure(
    store: Calibrations, manifest: Manifest, content: bytes, tmp_path: Path
) -> None:
    store.add(manifest, "door", made())
    path = tmp_path / "calibrations" / "scorer" / "door" / "000002.json"
    path.write_bytes(content)
    store.refresh()
    with pytest.raises(CalibrationInvalid, match=r"000002\.json: is no calibration .*; delete the file"):
        store.find(manifest, "door")
    damaged, good = store.all("scorer")
    assert isinstance(damaged, CalibrationInvalid)
    assert not isinstance(good, CalibrationInvalid)
    assert store.delete("scorer", "door", 2) == 1
    assert store.find(manifest, "door").version == 1


def test_a_folder_that_cannot_be_read_is_no_empty_one(
    store: Calibrations, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for camera in ("door", "gate"):
        store.add(manifest, camera, made())
    locked = tmp_path / "calibrations" / "scorer" / "door"
    scandir, listdir = os.scandir, os.listdir

    def as_for_others(list_it: Any) -> Any:  # noqa: ANN401
        def listed(path: Any) -> Any:  # noqa: ANN401 - a user without rights; the tests may run as root
            if Path(path) == locked:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return list_it(path)

        return listed

    monkeypatch.setattr(os, "scandir", as_for_others(scandir))
    monkeypatch.setattr(os, "listdir", as_for_others(listdir))
    words = r"calibrations/scorer/door: cannot be read \(Permission denied\); let the service read it"
    with pytest.raises(CalibrationInvalid, match=words):
        store.find(manifest, "door")
    assert store.find(manifest, "gate").version == 1
    assert [type(each) for each in store.all("scorer")] == [CalibrationInvalid, CameraCalibration]
    for attempt in (lambda: store.add(manifest, "door", made()), lambda: store.delete("scorer", "door")):
        with pytest.raises(CalibrationInvalid, match=words):
            attempt()
    locked = locked.parent
    store.refresh()
    for camera in ("door", "gate", "anywhere"):
        with pytest.raises(CalibrationInvalid, match="calibrations/scorer: cannot be read"):
            store.find(manifest, camera)


def test_a_file_from_elsewhere_is_refused(store: Calibrations, manifest: Manifest, tmp_path: Path) -> None:
    store.add(manifest, "door", made())
    folder = tmp_path / "calibrations" / "scorer"
    shutil.copytree(folder / "door", folder / "gate")
    with pytest.raises(CalibrationInvalid, match=r"holds version 1 for camera door of scorer, which belongs elsewhere"):
        read_calibration(folder / "gate" / "000001.json")
    store.refresh()
    with pytest.raises(CalibrationInvalid):
        store.find(manifest, "gate")
    assert store.find(manifest, "door").version == 1


def test_what_is_no_version_is_left_alone(store: Calibrations, manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "calibrations" / "scorer" / "door"
    folder.mkdir(parents=True)
    (folder / "notes.json").write_text("mine")
    (folder / ".hidden").write_text("mine")
    assert list(store.all("scorer")) == []
    assert store.add(manifest, "door", made()).version == 1


def test_a_full_disk_leaves_nothing_behind(
    store: Calibrations, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(CalibrationNotSaved, match=r"cannot be written \(No space left on device\); free space"):
        store.add(manifest, "door", made())
    assert list((tmp_path / "calibrations" / "scorer" / "door").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CalibrationNotSaved, match=r"file/scorer/door cannot be written \(Not a directory\)"):
        Calibrations(tmp_path / "file").add(manifest, "door", made())


def test_a_deletion_that_fails_is_said(
    store: Calibrations, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    store.add(manifest, "door", made())
    monkeypatch.setattr(Path, "replace", read_only)
    with pytest.raises(CalibrationNotSaved, match="Read-only file system"):
        store.delete("scorer", "door")


def test_two_who_write_at_once_get_two_numbers(manifest: Manifest, tmp_path: Path) -> None:
    def add(level: int) -> int:
        return Calibrations(tmp_path / "calibrations").add(manifest, "door", made(level)).version

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(add, range(16))) == list(range(1, 17))
