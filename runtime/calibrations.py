"""The calibrations of cameras, on disk: one file a version, FOLDER/<model>/<camera>/<version>.json.

A version is written whole or not at all and never changed. A deleted one leaves its file under another ending, so that
its number never means two things.
"""

import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from runtime.errors import (
    CalibrationError,
    CalibrationInvalid,
    CalibrationNotFound,
    CalibrationNotSaved,
    CalibrationStale,
)
from runtime.manifest import Calibration, CameraCalibration, Manifest

SUFFIX = ".json"
DELETED_SUFFIX = ".deleted"
FOLDER = "calibrations"  # beside the model folders, where nothing else is said

InForce = Mapping[str, CameraCalibration | CalibrationError]
"""The calibration of each camera, or why it has none that can be used."""


@dataclass(frozen=True)
class Shelf:
    """The versions of one camera's calibration for one model: [number, file], the newest first."""

    camera: str
    versions: tuple[tuple[int, Path], ...]
    failure: CalibrationInvalid | None = None
    """Why its folder cannot be read."""


class Calibrations:
    """The calibrations below a folder, which need not be there yet. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._in_force: dict[tuple[str, str], InForce] = {}

    def find(self, manifest: Manifest, camera: str) -> CameraCalibration:
        """Return the camera's newest calibration that was made for these weights.

        Raises CalibrationNotFound where the camera has none, CalibrationStale where all are for other weights,
        CalibrationInvalid where a newer file cannot be read, or a folder.
        """
        found = self.in_force(manifest).get(camera)
        if found is None:
            raise CalibrationNotFound(f"{manifest.name} has no calibration for camera {camera!r}: calibrate it first")
        if isinstance(found, CalibrationError):
            raise found
        return found

    def in_force(self, manifest: Manifest) -> InForce:
        """Return what decides for each camera; looked up once, until `refresh`."""
        key = manifest.name, manifest.sha256
        with self._lock:
            if key not in self._in_force:
                self._in_force[key] = {shelf.camera: _newest(shelf, manifest) for shelf in self._shelves(manifest.name)}
            return self._in_force[key]

    def is_looked_up(self, manifest: Manifest) -> bool:
        """Tell whether `in_force` and `find` will answer without reading a file."""
        return (manifest.name, manifest.sha256) in self._in_force

    def refresh(self) -> None:
        """Look again at the next question: files have been added or removed by others."""
        with self._lock:
            self._in_force = {}

    def all(self, model: str) -> Iterator[CameraCalibration | CalibrationInvalid]:
        """Yield every version of every camera by name, the newest first, or why it cannot be read."""
        for shelf in self._shelves(model):
            if shelf.failure is not None:
                yield shelf.failure
            for _, path in shelf.versions:
                try:
                    yield read_calibration(path)
                except CalibrationInvalid as error:
                    yield error

    def add(self, manifest: Manifest, camera: str, calibration: Calibration) -> CameraCalibration:
        """Write the camera's next version and return it; raise CalibrationNotSaved with the reason."""
        folder = self._folder / manifest.name / camera
        made = CameraCalibration(
            **{name: getattr(calibration, name) for name in Calibration.model_fields},
            camera=camera,
            version=self._last_number(manifest.name, camera) + 1,
            model=manifest.name,
            sha256=manifest.sha256,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while not _publish(made, folder):  # another process took the number
                made = made.model_copy(update={"version": made.version + 1})
        except OSError as error:
            raise _not_saved(folder, error) from error
        self.refresh()
        return made

    def delete(self, model: str, camera: str, version: int | None = None) -> int:
        """Delete one version, or all of a camera; return how many. Raises CalibrationNotFound, CalibrationNotSaved."""
        chosen = [
            path
            for shelf in self._shelves(model)
            for number, path in shelf.versions
            if shelf.camera == camera and version in {None, number}
        ]
        if not chosen:
            _entries(self._folder / model / camera)  # if it cannot be read, nobody knows
            what = "calibration" if version is None else f"version {version} of a calibration"
            raise CalibrationNotFound(f"{model} has no {what} for camera {camera!r}")
        for path in chosen:
            try:
                path.replace(path.with_suffix(DELETED_SUFFIX))
            except OSError as error:
                raise _not_saved(path.parent, error) from error
        self.refresh()
        return len(chosen)

    def _shelves(self, model: str) -> Iterator[Shelf]:
        for folder in sorted(_entries(self._folder / model)):
            if folder.name.startswith("."):
                continue
            try:
                versions = _numbered(folder, SUFFIX)
            except CalibrationInvalid as error:
                yield Shelf(folder.name, (), error)
            else:
                if versions:
                    yield Shelf(folder.name, tuple(sorted(versions, reverse=True)))

    def _last_number(self, model: str, camera: str) -> int:
        folder = self._folder / model / camera
        taken = [*_numbered(folder, SUFFIX), *_numbered(folder, DELETED_SUFFIX)]
        return max((number for number, _ in taken), default=0)


def _numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    return [(int(path.stem), path) for path in _entries(folder) if path.suffix == suffix and path.stem.isdecimal()]


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder; nothing where there is none. Path.glob would see nothing in a locked one either."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CalibrationInvalid(
            f"{folder}: cannot be read ({error.strerror}); let the service read it, and reload the models"
        ) from error


def read_calibration(path: Path) -> CameraCalibration:
    """Read FOLDER/<model>/<camera>/<version>.json; raise CalibrationInvalid where it is not that."""
    cure = "delete the file, or put the right one there, and reload the models"
    try:
        found = CameraCalibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationInvalid(f"{path}: cannot be read ({error.strerror}); {cure}") from error
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()[:3])
        raise CalibrationInvalid(f"{path}: is no calibration ({said}); {cure}") from error
    place = path.parent.parent.name, path.parent.name, int(path.stem)
    if (found.model, found.camera, found.version) != place:
        raise CalibrationInvalid(
            f"{path}: holds version {found.version} for camera {found.camera} of {found.model}, which belongs "
            f"elsewhere; {cure}"
        )
    return found


def _newest(shelf: Shelf, manifest: Manifest) -> CameraCalibration | CalibrationError:
    """Return the newest version for these weights: a model that is put back has its calibrations again."""
    if shelf.failure is not None:
        return shelf.failure
    try:
        for _, path in shelf.versions:
            found = read_calibration(path)
            if found.sha256 == manifest.sha256:
                return found
    except CalibrationInvalid as error:
        return error
    return CalibrationStale(
        f"the calibration of camera {shelf.camera!r} was made for other weights of {manifest.name} than these "
        f"({manifest.sha256[:12]}): calibrate it again"
    )


def _publish(made: CameraCalibration, folder: Path) -> bool:
    """Write a version under its number, whole; return False if the number is taken."""
    path = folder / f"{made.version:06d}{SUFFIX}"
    if path.with_suffix(DELETED_SUFFIX).exists():
        return False
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".") as file:
        file.write(made.model_dump_json(indent=1).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o644)
        try:
            os.link(file.name, path)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
    return True


def _not_saved(folder: Path, error: OSError) -> CalibrationNotSaved:
    return CalibrationNotSaved(
        f"{folder} cannot be written ({error.strerror}); free space there, or name a folder that can be written"
    )
