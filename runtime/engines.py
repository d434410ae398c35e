"""What computes an ONNX graph: onnxruntime, or OpenVINO where it is installed. Both look alike from outside."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from runtime.errors import DeviceUnavailable, OutOfMemory
from runtime.manifest import Tensor

# onnxruntime has no class of its own for this: its allocator's words, those of a plain malloc, those of CUDA.
NO_MEMORY = ("Failed to allocate memory", "std::bad_alloc", "bad allocation", "out of memory")

Arrays = dict[str, npt.NDArray[np.generic]]


class Engine(StrEnum):
    """A library that runs graphs."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Session(ABC):
    """An open graph. Safe to call from several threads."""

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """The tensors as the engine reads them."""

    @abstractmethod
    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.generic]]:
        """Compute the named outputs. What it raises has no common base."""


class OnnxRuntimeSession(Session):
    """A graph in onnxruntime on one execution provider."""

    def __init__(self, graph: bytes, provider: str, provider_options: Mapping[str, str], threads: int) -> None:
        """Open the graph; raise DeviceUnavailable if onnxruntime quietly took another provider."""
        options = ort.SessionOptions()
        options.log_severity_level = 3  # its warnings go past our JSON log
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning steals from the decoders
        # Without fallback: a GPU that fails later must not turn into a slow CPU that nobody hears of.
        self._session = ort.InferenceSession(
            graph, options, providers=[(provider, dict(provider_options))], enable_fallback=0
        )
        taken = self._session.get_providers()[0]
        if taken != provider:
            raise DeviceUnavailable(
                f"{provider} was asked for but onnxruntime took {taken}; "
                "check the driver and the CUDA libraries, or ask for device=cpu"
            )

    @property
    def signature(self) -> Signature:
        """Inputs and outputs; varying dimensions by name."""
        return Signature(_of_nodes(self._session.get_inputs()), _of_nodes(self._session.get_outputs()))

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.generic]]:
        """Compute. Raises OutOfMemory where there is no room for that."""
        try:
            return list(self._session.run(list(outputs), dict(inputs)))
        except Exception as error:
            if any(words in str(error) for words in NO_MEMORY):
                raise OutOfMemory("the device has no memory left for this frame; send a smaller one") from error
            raise


def _of_nodes(nodes: Iterable[ort.NodeArg]) -> tuple[Tensor, ...]:
    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    return tuple(found_tensor(node.name, types.get(node.type, node.type), node.shape) for node in nodes)


class OpenVinoSession(Session):
    """A graph in OpenVINO on the CPU, as many runs at a time as it has streams."""

    def __init__(self, graph: bytes, precision: str, streams: int, threads: int) -> None:
        """Compile the graph for `threads` in all, shared by `streams` runs at a time.

        Raises DeviceUnavailable where OpenVINO is not installed, or the CPU does not compute in this precision.
        """
        core = _core()
        require_precision(precision)
        self._compiled = core.compile_model(
            core.read_model(graph),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "ENABLE_CPU_PINNING": False,  # the cores are shared with the decoders
            },
        )
        self._of_thread = threading.local()

    @property
    def signature(self) -> Signature:
        """Inputs and outputs; OpenVINO does not keep the names of varying dimensions."""
        return Signature(_of_ports(self._compiled.inputs), _of_ports(self._compiled.outputs))

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.generic]]:
        """Compute; a request belongs to one thread at a time, so each thread has its own."""
        try:
            request = self._of_thread.request
        except AttributeError:
            request = self._of_thread.request = self._compiled.create_infer_request()
        request.infer(dict(inputs), share_inputs=True)
        return [np.array(request.get_tensor(name).data) for name in outputs]  # its own memory is written to again


def _of_ports(ports: Iterable[Any]) -> tuple[Tensor, ...]:
    types = {"u8": "uint8", "f32": "float32"}
    found = []
    for port in ports:
        dtype = port.get_element_type().get_type_name()
        shape = [str(side) if side.is_dynamic else side.get_length() for side in port.get_partial_shape()]
        # A port may have several names: what it is called in the file is that of its node, less an output's suffix.
        name = port.get_node().get_friendly_name().partition("/sink_port")[0]
        found.append(found_tensor(name, types.get(dtype, dtype), shape))
    return tuple(found)


def found_tensor(name: str, dtype: str, shape: Sequence[int | str]) -> Tensor:
    """Describe what was found, be it allowed or not."""
    return Tensor.model_construct(name=name, dtype=dtype, shape=tuple(shape))  # type: ignore[arg-type]


def require_precision(precision: str) -> None:
    """Raise DeviceUnavailable where OpenVINO is missing, or would only imitate the precision, which is slow."""
    if precision != "f32" and precision.upper() not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise DeviceUnavailable(f"this CPU does not compute in {precision}; ask for device=openvino")


def _core() -> Any:  # noqa: ANN401 - the package may be absent, and its types with it
    try:
        return import_module("openvino").Core()
    except ImportError as error:
        raise DeviceUnavailable("OpenVINO is not installed; install the openvino extra") from error
