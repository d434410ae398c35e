"""Finds the model folders, verifies them, holds them open, and swaps them without losing a request."""

import difflib
import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from runtime.contest import Trial
from runtime.errors import (
    ClearwatchError,
    ModelFolderInvalid,
    ModelNotFound,
    ModelNotReady,
    ShuttingDown,
    TaskNotSupported,
)
from runtime.manifest import MANIFEST_FILE, Manifest, Task, read_manifest
from runtime.model import Model
from service.metrics import Metrics
from service.opening import Opener

logger = logging.getLogger(__name__)

DEFAULTS_FILE = "defaults.json"
LOADING = "is still being opened and verified; try again in a moment"
_DEFAULTS = TypeAdapter(dict[Task, str])


@dataclass(frozen=True)
class Opened:
    """A model that is served, the checksum of the manifest it was opened with, and how its device was chosen."""

    model: Model
    digest: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """The models at one moment. A request takes one and keeps it to its end, whatever is reloaded meanwhile."""

    opened: Mapping[str, Opened] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)  # why a folder is not served, or not in its new form
    loading: frozenset[str] = frozenset()
    defaults: Mapping[Task, str] = field(default_factory=dict)

    def find(self, name: str | None, task: Task) -> Model:
        """Return the model of that name, or the default for the task. Raises a ModelError that says the cure."""
        model = self.model(name or self._default(task))
        model.require(task)
        return model

    def model(self, name: str) -> Model:
        """Return the model of that name; raise ModelNotFound or ModelNotReady."""
        return self.served(name).model

    def served(self, name: str) -> Opened:
        """Return the same with what is known of its opening."""
        if name in self.opened:
            if fault := self.opened[name].model.fault:
                raise ModelNotReady(f"{name} cannot be used: {fault}; POST /v1/models:reload opens it anew")
            return self.opened[name]
        if name in self.loading:
            raise ModelNotReady(f"{name} {LOADING}")
        if name in self.failed:
            raise ModelNotReady(f"{name} cannot be used: {self.failed[name]}")
        raise self._unknown(name)

    def _unknown(self, name: str) -> ModelNotFound:
        names = sorted({*self.opened, *self.failed, *self.loading})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return ModelNotFound(f"There is no model {name[:80]!r}; there are {', '.join(names)}.{hint}")

    def _default(self, task: Task) -> str:
        if task in self.defaults:
            return self.defaults[task]
        if self.loading:
            raise ModelNotReady(f"the models are still being opened, among them perhaps one that can {task}")
        raise TaskNotSupported(f"no model here can {task}; add one to the folder of models and reload")

    @property
    def is_ready(self) -> bool:
        """Whether every folder is served, in its newest form or an older one."""
        return not self.loading and all(name in self.opened for name in self.failed) and not self.faults

    @property
    def faults(self) -> dict[str, str]:
        """Why models that were opened are not run any more."""
        return {name: fault for name, each in self.opened.items() if (fault := each.model.fault) is not None}

    def states(self) -> dict[str, str]:
        """Say of every folder that it is ok, or why it is not."""
        states = dict.fromkeys(self.opened, "ok") | dict.fromkeys(self.loading, LOADING)
        for name, reason in self.failed.items():
            states[name] = f"ok, in the form opened before; the folder has changed and {reason}"
            if name not in self.opened:
                states[name] = reason
        return dict(sorted((states | self.faults).items()))


@dataclass(frozen=True)
class Reloaded:
    """What a reload has changed, by model name; a DEFAULTS_FILE that makes no sense is in `failed` too."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    kept: list[str]
    failed: dict[str, str]


class ModelStore:
    """The models of one folder. `load` and `reload` block: call them in a thread."""

    def __init__(self, folder: Path, opener: Opener, metrics: Metrics) -> None:
        """Look which folders there are, and open none. Raises ModelFolderInvalid where there are none."""
        self._folder = folder
        self._opener = opener
        self._metrics = metrics
        self._lock = threading.Lock()
        self.snapshot = Snapshot()
        metrics.failed.set_function(lambda: len({*self.snapshot.failed, *self.snapshot.faults}))
        self.snapshot = Snapshot(loading=frozenset(path.name for path in self._model_folders()))

    def load(self) -> None:
        """Open every folder; each is served as soon as it is verified. Raises ShuttingDown if the opener is closed."""
        with self._lock:
            folders = [self._folder / name for name in sorted(self.snapshot.loading)]
            defaults = self._defaults(folders, {}, self._wanted_defaults()[0])
            self.snapshot = Snapshot(loading=frozenset(path.name for path in folders), defaults=defaults)
            for path in folders:
                before = self.snapshot
                opened, failed = dict(before.opened), dict(before.failed)
                self._open_into(path, opened, failed)
                self._swap(Snapshot(opened, failed, before.loading - {path.name}, defaults))

    def reload(self) -> Reloaded:
        """Look again and swap in what is there now, all at once.

        A folder that has changed and does not open keeps being served in its old form. Raises ShuttingDown, and changes
        nothing, once the opener is closed.
        """
        with self._lock:
            before = self.snapshot.opened
            wanted, complaints = self._wanted_defaults()
            folders = self._model_folders()
            opened: dict[str, Opened] = {}
            failed: dict[str, str] = {}
            for path in folders:
                if path.name in before:
                    opened[path.name] = before[path.name]
                self._open_into(path, opened, failed)
            self._swap(Snapshot(opened, failed, frozenset(), self._defaults(folders, opened, wanted)))
        same = [name for name in opened if name in before and opened[name] is before[name]]
        return Reloaded(
            added=sorted(opened.keys() - before.keys()),
            removed=sorted(before.keys() - opened.keys()),
            changed=sorted(opened.keys() & before.keys() - set(same)),
            kept=sorted(same),
            failed=failed | complaints,
        )

    def blame(self, thread: int, seconds: float) -> str | None:
        """Run that model no more which the thread has been computing for too long; return its name, if it is one."""
        for name, each in self.snapshot.opened.items():
            if each.model.runs_in(thread):
                each.model.fault = f"a run did not end within {seconds:g} s"
                logger.error("model failed", extra={"model": name, "reason": each.model.fault})
                return name
        return None

    def _model_folders(self) -> list[Path]:
        cure = "set CLEARWATCH_MODELS_DIR to a folder of model folders"
        try:
            # A name that starts with a dot hides a folder that is still being copied.
            found = {path.parent for path in self._folder.glob(f"[!.]*/{MANIFEST_FILE}")}
            # One that is served and has no manifest yet is being replaced: it has not gone.
            found |= {path for name in self.snapshot.opened if _is_there(path := self._folder / name)}
        except OSError as error:
            raise ModelFolderInvalid(f"{self._folder} cannot be read ({error.strerror}); {cure}") from error
        if not found:
            what = f"holds no folder with a {MANIFEST_FILE}" if self._folder.is_dir() else "is no folder"
            raise ModelFolderInvalid(f"{self._folder.absolute()} {what}; {cure}")
        return sorted(found)

    def _open_into(self, path: Path, opened: dict[str, Opened], failed: dict[str, str]) -> None:
        """Open a folder unless it is open in this very form; an error is noted and stops nothing else."""
        try:
            digest = _digest(path / MANIFEST_FILE)
            known = opened.get(path.name)
            if known is None or known.digest != digest or known.model.fault is not None:
                model, trials = self._opener.open(path)
                opened[path.name] = Opened(model, digest, trials)
                identity = {"model": path.name, "sha256": model.manifest.sha256, "device": model.device.name}
                logger.info("model opened", extra={**identity, "trials": list(map(str, trials))})
        except ShuttingDown:
            raise
        except ClearwatchError as error:
            failed[path.name] = str(error)
            logger.error("model failed", extra={"model": path.name, "reason": str(error)})  # noqa: TRY400 - it says all
        except Exception:
            failed[path.name] = "it cannot be opened; the log says why"
            logger.exception("model failed", extra={"model": path.name})

    def _swap(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot  # one assignment: a request sees the old models or the new ones, never a mixture
        self._metrics.serves(opened.model for opened in snapshot.opened.values())

    def _defaults(
        self, folders: list[Path], opened: Mapping[str, Opened], wanted: Mapping[Task, str]
    ) -> dict[Task, str]:
        """Say which model answers a task when none is named: the wanted one, else the first by name.

        Taken from the manifests, so that a model that fails is missed rather than silently replaced by another; from
        that of the form in service where there is one, for its folder may be half copied.
        """
        manifests = {path.name: manifest for path in folders if (manifest := _readable(path)) is not None}
        manifests |= {name: each.model.manifest for name, each in opened.items()}
        defaults = {}
        for task in Task:
            able = [name for name, manifest in manifests.items() if task in manifest.tasks]
            able.sort(key=lambda name: manifests[name].input.time)  # one frame is what most requests bring
            if task in wanted and wanted[task] not in able:
                logger.warning("%s: %s names no model that can %s", DEFAULTS_FILE, wanted[task], task)
            if able:
                defaults[task] = wanted[task] if wanted.get(task) in able else able[0]
        return defaults

    def _wanted_defaults(self) -> tuple[Mapping[Task, str], dict[str, str]]:
        """Return what `defaults.json` says; where it makes no sense, what was the default before, and why."""
        path = self._folder / DEFAULTS_FILE
        try:
            return _DEFAULTS.validate_python(json.loads(path.read_bytes())), {}
        except FileNotFoundError:
            return {}, {}
        except (OSError, ValueError) as error:
            logger.warning("%s is ignored: %s", path, error)
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            return self.snapshot.defaults, {DEFAULTS_FILE: f"it is ignored, the defaults stay: {reason}"}


def _is_there(folder: Path) -> bool:
    return folder.is_dir() or folder.is_symlink()


def _digest(manifest: Path) -> str:
    try:
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelFolderInvalid(f"{manifest}: cannot be read ({error.strerror})") from error


def _readable(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except ModelFolderInvalid:
        return None  # opening it will say so
