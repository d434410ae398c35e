"""Open a model folder, hold it to its manifest, and run it: frames in, named arrays out."""

import hashlib
import io
import logging
import threading
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime.devices import Device, open_session
from runtime.engines import Arrays, Session, Signature, found_tensor
from runtime.errors import (
    DeviceUnavailable,
    InvalidInput,
    ModelFolderInvalid,
    ModelNotReady,
    OutOfMemory,
    TaskNotSupported,
)
from runtime.images import Pixels, Size, fingerprint, resize
from runtime.manifest import File, Graph, Manifest, Task, Tensor, read_manifest
from runtime.motion import optical_flow

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Answers = list[npt.NDArray[np.generic]]

# What a re-run of the golden input may differ by: other CPUs and GPUs sum in another order.
GOLDEN_LEVELS = 1  # of 255, on uint8 outputs
GOLDEN_RTOL = 1e-3  # of the largest magnitude, on float outputs

# Frames that a model for any size is tried with: the smallest, and a larger one after it.
ODD_SIZES = ((1, 1), (24, 37), (1, 1))

# Noise is judged on all pixels of a frame up to this size, else on a grid of crops.
ESTIMATE_MAX_PIXELS = 1_000_000
ESTIMATE_CROP = 320


class WrongShape(RuntimeError):
    """An engine has answered with an array of another size than it was asked for."""


@dataclass(frozen=True)
class Outputs:
    """What an autoencoder graph answers for a batch; None where the model has no such output."""

    reconstruction: Pixels | None = None  # [batch, h, w, c]
    anomaly_map: Floats | None = None  # [batch, h, w], at the resolution of the model's input
    anomaly_score: Floats | None = None  # [batch]
    latent: Floats | None = None  # [batch, latent_dim]

    def __getitem__(self, index: int) -> "Outputs":
        """Return one frame's outputs, without the batch axis."""
        return Outputs(**{name: value[index] for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class Sessions:
    """A model's graphs, open, by name."""

    shared: Mapping[str, Session]
    """For as many runs at a time as the device has workers."""
    alone: Mapping[str, Session]
    """For a run that has the device to itself: on CPUs with the threads of all workers."""
    refuge: Mapping[str, Session] = field(default_factory=dict)
    """For frames that the device has no memory for; empty where they are to fail."""


class Model:
    """A verified model folder with its graphs open on a device. Safe to call from several threads.

    A model that has failed for good, on its golden input too or by never coming to an end, has a `fault` and runs no
    more.
    """

    def __init__(self, manifest: Manifest, device: Device, sessions: Sessions, golden: Arrays) -> None:
        self.manifest = manifest
        self.sha256 = manifest.sha256  # it is told with every answer, and the manifest would compute it each time
        self.device = device
        self._sessions = sessions
        self.fault: str | None = None
        self._golden = {name: _inputs_of(name, golden) for name in manifest.graphs.present()}
        self._running: set[int] = set()  # threads
        self._graphs = manifest.graphs.present()
        self._trained_on = frozenset(manifest.provenance.trained_on)

    @classmethod
    def open(cls, folder: Path, device: Device) -> "Model":
        """Open and verify a folder: manifest, checksums, signatures, golden input (which warms it up too).

        Raises ModelFolderInvalid naming the file, the expected and the found value.
        """
        manifest = read_manifest(folder)
        golden = _golden_arrays(folder, manifest.golden)
        files = {
            name: GraphFile(name, folder / graph.file, graph, _verified(folder / graph.file, graph))
            for name, graph in manifest.graphs.present().items()
        }
        shared = {name: file.open_checked(device, golden) for name, file in files.items()}
        alone = shared
        if device.workers > 1 and device.max_batch == 1:  # else one worker has all there is
            alone = {name: file.open(device, alone=True) for name, file in files.items()}
        refuge = {}
        if device.refuge is not None:
            refuge = {name: file.open_checked(device.refuge, golden) for name, file in files.items()}
        model = cls(manifest, device, Sessions(shared, alone, refuge), golden)
        model._check_sizes(folder / manifest.graphs.autoencoder.file)
        return model

    def rehearse(self) -> None:
        """Run the golden input once more, to see how long it takes."""
        self._run("autoencoder", self._golden["autoencoder"])

    def runs_in(self, thread: int) -> bool:
        """Tell whether the thread is computing one of the graphs just now."""
        return thread in self._running

    @property
    def frame_size(self) -> Size | None:
        """The size that frames are scaled to; None for a model that takes any."""
        height, width = self.manifest.input.height, self.manifest.input.width
        return None if height is None or width is None else Size(height, width)

    def fit(self, pixels: Pixels) -> Pixels:
        """Scale [h, w, c] pixels to the input size of the model, where it has one."""
        return pixels if self.frame_size is None else resize(pixels, *self.frame_size)

    def has_learnt(self, fitted: Pixels) -> bool:
        """Tell whether these very pixels, of the model's own size, are known to have been trained on."""
        return bool(self._trained_on) and fingerprint(fitted) in self._trained_on

    def run(
        self,
        frames: Pixels,
        noise_level: Floats | None = None,
        *,
        alone: bool = False,
        wanted: Container[str] | None = None,
    ) -> Outputs:
        """Run the autoencoder on uint8 [batch, (time,) h, w, c]; `noise_level` [batch] on the 0..255 scale.

        A graph that takes `flow` is given what runtime.motion finds in the frames. `alone` takes every core of a CPU:
        right where nothing else is to be done meanwhile. Where some outputs are `wanted` the others stay None, and
        are not brought back from the device. Raises InvalidInput where the arrays are not what the graph takes.
        """
        inputs: Arrays = {"frames": frames}
        if noise_level is not None:
            inputs["noise_level"] = noise_level
        inputs |= self._flow(frames)
        return Outputs(**self._run("autoencoder", inputs, alone=alone, wanted=wanted))  # type: ignore[arg-type]

    def _flow(self, frames: Pixels) -> Arrays:
        """Return the flow of clips for a graph that takes it; nothing for other graphs and other frames."""
        geometry = self.manifest.input
        takes = tuple(tensor for tensor in self._graphs["autoencoder"].inputs if tensor.name == "frames")
        if geometry.flow_step is None or not _accepts(takes, {"frames": frames}):
            return {}
        return {"flow": np.stack([optical_flow(clip, geometry.flow_step, geometry.flows) for clip in frames])}

    def generate(self, latents: Floats) -> Pixels:
        """Decode latents [n, latent_dim] to uint8 samples [n, h, w, c].

        Raises TaskNotSupported without a generator, InvalidInput for latents of another shape or not finite.
        """
        self.require(Task.SAMPLE)
        dim = self.manifest.latent_dim
        if latents.ndim != 2 or latents.shape[1] != dim or not np.isfinite(latents).all():
            raise InvalidInput(
                f"latents must be finite numbers of shape [n][{dim}] for {self.manifest.name}; "
                f"found shape {list(latents.shape)}"
            )
        return np.asarray(self._run("generator", {"latent": latents})["samples"], np.uint8)

    def estimate_noise_level(self, frame: Pixels) -> float:
        """Estimate the noise of one [h, w, c] frame, as the sigma of white noise on the 0..255 scale.

        Frames over a megapixel are judged by the median over nine crops on a grid. Raises TaskNotSupported
        without such a graph.
        """
        levels = self._run("noise_estimator", {"frames": _noise_crops(frame)})["noise_level"]
        return float(np.median(np.maximum(levels.astype(np.float32), 0)))  # OpenVINO has answered -6e-07

    def require(self, task: Task) -> None:
        """Raise TaskNotSupported unless the model can do the task."""
        if task not in self.manifest.tasks:
            offered = ", ".join(self.manifest.tasks)
            raise TaskNotSupported(f"{self.manifest.name} cannot {task}; it can {offered}")

    def _run(self, name: str, inputs: Arrays, *, alone: bool = False, wanted: Container[str] | None = None) -> Arrays:
        graph = self._graphs.get(name)
        if graph is None:
            raise TaskNotSupported(f"{self.manifest.name} has no {name} graph")
        if not _accepts(graph.inputs, inputs):
            takes, found = _signature(graph.inputs), _signature(_describe(inputs))
            raise InvalidInput(f"{self.manifest.name} takes {takes}, of one batch; found {found}")
        tensors = [tensor for tensor in graph.outputs if wanted is None or tensor.name in wanted]
        outputs = [tensor.name for tensor in tensors]
        session = (self._sessions.alone if alone else self._sessions.shared)[name]
        answers = dict(zip(outputs, self._compute(name, session, outputs, inputs), strict=True))
        lengths = _lengths(graph.inputs, inputs)
        for tensor in tensors:
            expected = tuple(lengths.get(side, side) for side in tensor.shape)
            shape = answers[tensor.name].shape
            if shape != expected:
                raise WrongShape(f"{tensor.name} should have the shape {list(expected)}, not {list(shape)}")
        return answers

    def _compute(self, name: str, session: Session, outputs: list[str], inputs: Arrays) -> Answers:
        if self.fault is not None:
            raise ModelNotReady(f"{self.manifest.name} cannot be used: {self.fault}")
        thread = threading.get_ident()
        self._running.add(thread)
        try:
            return session.run(outputs, inputs)
        except OutOfMemory:
            if not self._sessions.refuge or _batch(inputs) > 1:  # smaller batches come first
                raise
            logger.warning("out of memory: a frame is computed on the CPU", extra={"model": self.manifest.name})
            return self._sessions.refuge[name].run(outputs, inputs)
        except Exception as error:
            self._examine(name, session, outputs, error)
            raise
        finally:
            self._running.discard(thread)

    def _examine(self, name: str, session: Session, outputs: list[str], error: Exception) -> None:
        """After a failure, see whether the graph still computes its golden input: if so, the frame was at fault.

        Raises ModelNotReady if it does not.
        """
        try:
            session.run(outputs, self._golden[name])
        except OutOfMemory:
            return
        except Exception as again:
            self.fault = f"its {name} failed, on its golden input too; the log says how"
            logger.exception("model failed", extra={"model": self.manifest.name, "first": str(error)})
            raise ModelNotReady(f"{self.manifest.name} cannot be used: {self.fault}") from again

    def _check_sizes(self, path: Path) -> None:
        """Try frames of several sizes where the model takes any: engines plan for a size and may keep to it."""
        geometry = self.manifest.input
        if geometry.height is not None:
            return
        for height, width in ODD_SIZES:
            shape = (1, *([geometry.time] if geometry.time > 1 else []), height, width, geometry.channels)
            frames = {"frames": np.zeros(shape, np.uint8)}
            others = {name: values[:1] for name, values in self._golden["autoencoder"].items() if name != "frames"}
            try:
                self._run("autoencoder", others | frames)
            except WrongShape as error:
                raise ModelFolderInvalid(f"{path}: on {self.device.name}, {error}") from error


@dataclass(frozen=True)
class GraphFile:
    """A graph as its file holds it, read once: every session of a model is of the same bytes."""

    name: str
    path: Path
    graph: Graph
    data: bytes

    def open(self, device: Device, *, alone: bool = False) -> Session:
        """Open it; raise ModelFolderInvalid if the engine cannot."""
        return _open_graph(self.path, self.data, device, alone=alone)

    def open_checked(self, device: Device, golden: Arrays) -> Session:
        """Open it and hold it to its signature and its golden outputs."""
        session = self.open(device)
        _check_signature(self.path, self.graph, session.signature)
        _check_golden(self.path, self.name, session, golden)
        return session


def _batch(arrays: Arrays) -> int:
    return max(len(array) for array in arrays.values())


def _lengths(tensors: tuple[Tensor, ...], arrays: Arrays) -> dict[int | str, int]:
    """Return how long the varying dimensions are in these arrays."""
    pairs = (zip(tensor.shape, arrays[tensor.name].shape, strict=True) for tensor in tensors)
    return {side: length for pair in pairs for side, length in pair if isinstance(side, str)}


def _accepts(tensors: tuple[Tensor, ...], arrays: Arrays) -> bool:
    """Tell whether the arrays have the names, types and fixed lengths of the tensors, and one batch length."""
    batch = {array.shape[:1] for array in arrays.values()}
    return (
        {tensor.name for tensor in tensors} == set(arrays)
        and len(batch) == 1
        and all(_fits(tensor, arrays[tensor.name]) for tensor in tensors)
    )


def _fits(tensor: Tensor, array: npt.NDArray[np.generic]) -> bool:
    return (
        array.dtype == tensor.dtype
        and array.ndim == len(tensor.shape)
        and all(
            isinstance(length, str) or length == found for length, found in zip(tensor.shape, array.shape, strict=True)
        )
    )


def _describe(arrays: Arrays) -> tuple[Tensor, ...]:
    return tuple(found_tensor(name, str(array.dtype), array.shape) for name, array in arrays.items())


def _noise_crops(frame: Pixels) -> Pixels:
    """Return [n, h, w, c]: the frame itself, or nine crops of a large one."""
    height, width, _ = frame.shape
    if height * width <= ESTIMATE_MAX_PIXELS:
        return frame[None]
    tall, wide = min(ESTIMATE_CROP, height), min(ESTIMATE_CROP, width)
    tops = np.linspace(0, height - tall, 3).astype(int)
    lefts = np.linspace(0, width - wide, 3).astype(int)
    return np.stack([frame[y : y + tall, x : x + wide] for y in tops for x in lefts])


def _verified(path: Path, expected: File) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFolderInvalid(f"{path}: cannot be read ({error.strerror})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected.sha256:
        raise ModelFolderInvalid(
            f"{path}: sha256 should be {expected.sha256} ({expected.bytes} bytes) "
            f"and is {found} ({len(data)} bytes); copy the folder again or export the model anew"
        )
    return data


def _golden_arrays(folder: Path, golden: File) -> Arrays:
    path = folder / golden.file
    data = _verified(path, golden)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    except Exception as error:  # what numpy and zipfile raise on other bytes has no common base
        raise ModelFolderInvalid(f"{path}: is no archive of arrays: {error}") from error


def _open_graph(path: Path, data: bytes, device: Device, *, alone: bool = False) -> Session:
    try:
        return open_session(data, device, alone=alone)
    except DeviceUnavailable:
        raise
    except Exception as error:  # the failures of the engines share no base class
        raise ModelFolderInvalid(f"{path}: {device.engine} cannot open it: {error}") from error


def _check_signature(path: Path, graph: Graph, found: Signature) -> None:
    for side in ("inputs", "outputs"):
        expected: tuple[Tensor, ...] = getattr(graph, side)
        tensors: tuple[Tensor, ...] = getattr(found, side)
        if len(tensors) != len(expected) or not all(map(Tensor.agrees, expected, tensors)):
            raise ModelFolderInvalid(f"{path}: {side} should be {_signature(expected)} and are {_signature(tensors)}")


def _signature(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(map(str, tensors)) or "nothing"


def _check_golden(path: Path, name: str, session: Session, golden: Arrays) -> None:
    """Run the input stored at export and compare every output with the one stored beside it."""
    inputs = _inputs_of(name, golden)
    outputs = [output.name for output in session.signature.outputs]
    try:
        found = dict(zip(outputs, session.run(outputs, inputs), strict=True))
    except Exception as error:  # the failures of onnxruntime share no base class
        raise ModelFolderInvalid(f"{path}: fails on its golden input: {error}") from error
    for output in outputs:
        key = f"{name}.out.{output}"
        if key not in golden:
            raise ModelFolderInvalid(f"{path}: the golden file holds no {key}")
        _check_close(f"{path}: golden output {output}", golden[key], found[output])


def _inputs_of(name: str, golden: Arrays) -> Arrays:
    prefix = f"{name}.in."
    return {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}


def _check_close(what: str, expected: npt.NDArray[np.generic], found: npt.NDArray[np.generic]) -> None:
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        raise ModelFolderInvalid(
            f"{what} should be {expected.dtype}{list(expected.shape)} and is {found.dtype}{list(found.shape)}"
        )
    wide = expected.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        apart = float(np.abs(wide - found.astype(np.float64)).max(initial=0.0))
    allowed = GOLDEN_LEVELS if expected.dtype == np.uint8 else GOLDEN_RTOL * float(np.abs(wide).max(initial=0.0))
    if not apart <= allowed < np.inf:  # so a NaN or an infinity is refused, on whichever side
        raise ModelFolderInvalid(f"{what} differs by {apart:.6g}; at most {allowed:.6g} is allowed")
