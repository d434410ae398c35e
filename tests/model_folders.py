"""Tiny real model folders, built on the spot with onnx: what the tests open in place of trained models.

Each `write_*` writes a folder that `runtime.Model.open` accepts: a manifest, ONNX graphs that do all their
arithmetic themselves, and a golden file computed by running them. Nothing here is trained; what each graph
computes is said in one line, so that a test can compute it with numpy too.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from runtime.images import Pixels
from runtime.manifest import (
    Calibration,
    File,
    FrameInput,
    Graph,
    Graphs,
    Manifest,
    Noise,
    Provenance,
    Task,
    Tensor,
    write_manifest,
)

Array = npt.NDArray[Any]
Shape = tuple[int | str, ...]

OPSET = 18
IR_VERSION = 9  # what onnxruntime 1.20, the oldest we allow, reads
NORMAL_FRAMES = 40
FALSE_ALARM_RATE = 0.05
GOLDEN_BATCH = 2
GOLDEN_NOISE_LEVELS = (10.0, 30.0)

_DTYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class Net:
    """An ONNX graph in the making: every call adds a node and returns the name of its result."""

    def __init__(self, **inputs: tuple[str, Shape]) -> None:
        self.inputs = tuple(Tensor.model_validate({"name": n, "dtype": d, "shape": s}) for n, (d, s) in inputs.items())
        self.outputs: tuple[Tensor, ...] = ()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401 - as onnx has it
        """Add a node with one result."""
        result = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def floats(self, values: npt.ArrayLike) -> str:
        """Add a float32 constant."""
        return self._constant(np.asarray(values, np.float32))

    def ints(self, *values: int) -> str:
        """Add a list of integers, as shapes and axes are given."""
        return self._constant(np.asarray(values, np.int64))

    def _constant(self, values: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def output(self, name: str, result: str, dtype: str, shape: Shape) -> None:
        """Declare a result as an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [result], [name]))
        self.outputs += (Tensor.model_validate({"name": name, "dtype": dtype, "shape": shape}),)

    def build(self) -> bytes:
        """Return the checked ONNX file."""
        inputs, outputs = ([_value_info(tensor) for tensor in side] for side in (self.inputs, self.outputs))
        graph = helper.make_graph(self._nodes, "tiny", inputs, outputs, initializer=self._constants)
        model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data


def _value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _DTYPES[tensor.dtype], tensor.shape)


# -- what the graphs share: pixels are floats [batch, channels, h, w] on the 0..255 scale inside


def _from_frames(net: Net) -> str:
    floats = net("Cast", "frames", to=TensorProto.FLOAT)
    return net("Transpose", floats, perm=[0, 3, 1, 2])


def _to_uint8(net: Net, pixels: str) -> str:
    whole = net("Round", net("Clip", pixels, net.floats(0), net.floats(255)))
    return net("Transpose", net("Cast", whole, to=TensorProto.UINT8), perm=[0, 2, 3, 1])


def _blur(net: Net, pixels: str) -> str:
    """3 x 3 average; the frame's edge is repeated outwards."""
    padded = net("Pad", pixels, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge")
    return net("AveragePool", padded, kernel_shape=[3, 3])


def _score(net: Net, pixels: str, reconstruction: str, geometry: FrameInput) -> str:
    """Add reconstruction, anomaly_map (mean over channels of the squared error, 0..1) and its maximum."""
    height, width = _size(geometry)
    recalled = _to_uint8(net, reconstruction)
    rounded = net("Transpose", net("Cast", recalled, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    error = net("Div", net("Sub", pixels, rounded), net.floats(255))
    anomaly_map = net("ReduceMean", net("Mul", error, error), net.ints(1), keepdims=0)
    score = net("ReduceMax", anomaly_map, net.ints(1, 2), keepdims=0)
    net.output("reconstruction", recalled, "uint8", ("batch", height, width, geometry.channels))
    net.output("anomaly_map", anomaly_map, "float32", ("batch", height, width))
    return score


def _encode(net: Net, pixels: str, latent_dim: int) -> None:
    """Add latent: the mean of the frame (0..1) times 1, 2, ... latent_dim."""
    mean = net("ReduceMean", net("Div", pixels, net.floats(255)), net.ints(1, 2, 3), keepdims=0)
    column = net("Unsqueeze", mean, net.ints(1))
    latent = net("Mul", column, net.floats([range(1, latent_dim + 1)]))
    net.output("latent", latent, "float32", ("batch", latent_dim))


def _size(geometry: FrameInput) -> tuple[int | str, int | str]:
    return geometry.height or "height", geometry.width or "width"


def _frames(geometry: FrameInput) -> tuple[str, Shape]:
    time = () if geometry.time == 1 else (geometry.time,)
    return "uint8", ("batch", *time, *_size(geometry), geometry.channels)


# -- folders


@dataclass(frozen=True)
class Facts:
    """What a manifest says besides its files."""

    tasks: tuple[Task, ...]
    input: FrameInput
    version: str = "1"
    calibrated: bool = False
    latent_dim: int | None = None
    noise: Noise | None = None


def write_folder(folder: Path, facts: Facts, nets: Mapping[str, Net]) -> Path:
    """Write the graphs, the golden file and the manifest; `nets` are named as in `Graphs`."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs, sessions = {}, {}
    golden: dict[str, Array] = {}
    for name, net in nets.items():
        data = net.build()
        file = _write(folder / f"{name}.onnx", data)
        graphs[name] = Graph(**file.model_dump(), inputs=net.inputs, outputs=net.outputs)
        sessions[name] = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
        inputs = {tensor.name: _golden_input(tensor, facts.input) for tensor in net.inputs}
        golden |= {f"{name}.in.{key}": value for key, value in inputs.items()}
        golden |= {f"{name}.out.{key}": value for key, value in _run(sessions[name], inputs).items()}
    manifest = Manifest(
        name=folder.name,
        version=facts.version,
        kind="tiny",
        description="built by the tests; nothing in it is trained",
        licence="Apache-2.0",
        tasks=facts.tasks,
        input=facts.input,
        graphs=Graphs(**graphs),
        golden=_write_golden(folder / "golden.npz", golden),
        parameters=1,
        latent_dim=facts.latent_dim,
        noise=facts.noise,
        calibration=_calibrate(sessions["autoencoder"], facts.input) if facts.calibrated else None,
        provenance=Provenance(created="2025-01-01T00:00:00Z", commit="0" * 40, libraries={}, config={}),
    )
    write_manifest(manifest, folder)
    return folder


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change `manifest.json` in place, without any check: for tests of folders that break their promise."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def describe_file(path: Path) -> File:
    """Return what a manifest says of the file as it is now."""
    data = path.read_bytes()
    return File(file=path.name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def normal_frames(count: int, geometry: FrameInput, seed: int = 0) -> Pixels:
    """Return quiet frames (or clips), [count, (time,) h, w, c]: a soft gradient with faint noise."""
    height, width = geometry.height or 24, geometry.width or 37
    rows, columns = np.linspace(60, 160, height)[:, None, None], np.linspace(0, 40, width)[:, None]
    time = () if geometry.time == 1 else (geometry.time,)
    noise = np.random.default_rng(seed).normal(0, 1, (count, *time, height, width, geometry.channels))
    return np.rint(np.clip(rows + columns + noise, 0, 255)).astype(np.uint8)


def _write(path: Path, data: bytes) -> File:
    path.write_bytes(data)
    return describe_file(path)


def _write_golden(path: Path, arrays: dict[str, Array]) -> File:
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return describe_file(path)


def _run(session: ort.InferenceSession, inputs: dict[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _golden_input(tensor: Tensor, geometry: FrameInput) -> Array:
    if tensor.name == "frames":
        return normal_frames(GOLDEN_BATCH, geometry, seed=1)
    if tensor.name == "noise_level":
        return np.asarray(GOLDEN_NOISE_LEVELS, np.float32)
    shape = [GOLDEN_BATCH if isinstance(length, str) else length for length in tensor.shape]
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def _calibrate(session: ort.InferenceSession, geometry: FrameInput) -> Calibration:
    found = _run(session, {"frames": normal_frames(NORMAL_FRAMES, geometry)})
    scores = np.sort(found["anomaly_score"].astype(np.float64))
    return Calibration(
        scores=tuple(scores.tolist()),
        count=NORMAL_FRAMES,
        threshold=float(np.quantile(scores, 1 - FALSE_ALARM_RATE, method="higher")),
        false_alarm_rate=FALSE_ALARM_RATE,
        map_low=float(np.median(found["anomaly_map"])),
        map_threshold=float(found["anomaly_map"].max()),
        source=f"{NORMAL_FRAMES} frames made by the tests",
    )


# -- the models


def write_scorer(
    folder: Path,
    *,
    height: int = 32,
    width: int = 48,
    channels: int = 1,
    calibration: bool = True,
    latent_dim: int = 4,
    version: str = "1",
    work: int = 0,
) -> Path:
    """Reconstruct a frame as its 3 x 3 blur; the score is the largest squared error. `work`: see write_slow."""
    geometry = FrameInput.model_validate({"channels": channels, "height": height, "width": width})
    net = Net(frames=_frames(geometry))
    pixels = _from_frames(net)
    score = _score(net, pixels, _blur(net, pixels), geometry)
    net.output("anomaly_score", _labour(net, score, work) if work else score, "float32", ("batch",))
    _encode(net, pixels, latent_dim)
    tasks = (Task.RECONSTRUCT, Task.SCORE, Task.ENCODE)
    facts = Facts(tasks, geometry, version, calibrated=calibration, latent_dim=latent_dim)
    return write_folder(folder, facts, {"autoencoder": net})


def write_treacherous(folder: Path, *, hangs: bool, rounds: int = 2**60) -> Path:
    """Write a scorer that a white frame, and no other, makes fail, or go round in a loop: for years by default."""
    geometry = FrameInput(channels=1, height=32, width=48)
    net = Net(frames=_frames(geometry))
    pixels = _from_frames(net)
    white = net("Equal", net("ReduceMin", pixels, keepdims=0), net.floats(255))
    trouble = net("Cast", white, to=TensorProto.INT64)  # 1 for a white frame, else 0
    nothing = _loop(net, trouble, rounds) if hangs else net("Gather", net.floats([0]), trouble)
    score = _score(net, pixels, _blur(net, pixels), geometry)
    net.output("anomaly_score", net("Add", score, nothing), "float32", ("batch",))
    facts = Facts((Task.RECONSTRUCT, Task.SCORE), geometry, calibrated=True)
    return write_folder(folder, facts, {"autoencoder": net})


def _loop(net: Net, trouble: str, count: int) -> str:
    """Return 0: after so many rounds for trouble = 1, at once for 0."""
    names = {"round": TensorProto.INT64, "goes_on": TensorProto.BOOL, "value": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in names.items()]
    outputs = [
        helper.make_tensor_value_info("still_goes_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next_value", TensorProto.FLOAT, []),
    ]
    nodes = [
        helper.make_node("Identity", ["goes_on"], ["still_goes_on"]),
        helper.make_node("Identity", ["value"], ["next_value"]),
    ]
    body = helper.make_graph(nodes, "rounds", inputs, outputs)
    rounds = net("Mul", trouble, net("Squeeze", net.ints(count)))
    return net("Loop", rounds, "", net.floats(0), body=body)


def write_slow(folder: Path, *, work: int = 300, calibration: bool = True, version: str = "1") -> Path:
    """Write a scorer that multiplies two large matrices `work` times, whatever the batch: about 0.5 ms each."""
    return write_scorer(folder, work=work, calibration=calibration, version=version)


def _labour(net: Net, score: str, work: int) -> str:
    """Return `score` unchanged after `work` products of matrices that depend on it, so nothing can be folded."""
    size = 256
    half = net.floats(0.5)
    nothing = net("Mul", net("ReduceMax", score, keepdims=0), net.floats(0))
    product = net("Add", net.floats(np.eye(size)), nothing)
    for _ in range(work):
        product = net("Clip", net("MatMul", product, product), net.floats(0), half)
    nothing = net("Mul", net("ReduceMax", product, keepdims=0), net.floats(0))
    return net("Add", score, nothing)


def write_denoiser(
    folder: Path, *, channels: int = 3, version: str = "1", tint: tuple[float, ...] | None = None
) -> Path:
    """Average 2 x 2 blocks (stride 2), blur them 3 x 3, and mix that in by min(1, noise_level / 25).

    With `tint`, levels a channel, what is mixed in has a colour cast. An output pixel looks at no pixel further than
    2 away, and at level 0 the frame comes back untouched.
    """
    geometry = FrameInput.model_validate({"channels": channels, "stride": 2, "receptive_field": 2})
    net = Net(frames=_frames(geometry), noise_level=("float32", ("batch",)))
    pixels = _from_frames(net)
    blocks = net("AveragePool", pixels, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    doubled = net(
        "Resize", blocks, "", net.floats([1, 1, 2, 2]), mode="nearest", coordinate_transformation_mode="asymmetric"
    )
    size = net("Shape", pixels, start=2)
    smooth = _blur(net, net("Slice", doubled, net.ints(0, 0), size, net.ints(2, 3)))
    if tint is not None:
        smooth = net("Add", smooth, net.floats(np.reshape(tint, (channels, 1, 1))))
    share = net("Clip", net("Div", "noise_level", net.floats(25)), net.floats(0), net.floats(1))
    mixed = net("Mul", net("Unsqueeze", share, net.ints(1, 2, 3)), net("Sub", smooth, pixels))
    result = _to_uint8(net, net("Add", pixels, mixed))
    net.output("reconstruction", result, "uint8", ("batch", "height", "width", channels))
    noise = Noise(description="Gaussian", minimum_level=0, maximum_level=50)
    nets = {"autoencoder": net, "noise_estimator": _noise_estimator(geometry)}
    return write_folder(folder, Facts((Task.DENOISE,), geometry, version, noise=noise), nets)


def _noise_estimator(geometry: FrameInput) -> Net:
    """Mean absolute Laplacian difference, scaled to the standard deviation of Gaussian noise (Immerkaer 1996)."""
    net = Net(frames=_frames(geometry))
    padded = net("Pad", _from_frames(net), net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge")
    mask = np.outer([1, -2, 1], [1, -2, 1])[None, None].repeat(geometry.channels, axis=0)
    response = net("Abs", net("Conv", padded, net.floats(mask), group=geometry.channels))
    mean = net("ReduceMean", response, net.ints(1, 2, 3), keepdims=0)
    net.output("noise_level", net("Mul", mean, net.floats(np.sqrt(np.pi / 2) / 6)), "float32", ("batch",))
    return net


def write_generator(
    folder: Path, *, latent_dim: int = 4, height: int = 16, width: int = 16, version: str = "1"
) -> Path:
    """Project grey frames onto `latent_dim` fixed orthonormal pictures and back; the way back generates too."""
    geometry = FrameInput(channels=1, height=height, width=width)
    pixels = height * width
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((pixels, latent_dim)))[0]  # [pixels, latent_dim]

    def decode(net: Net, latent: str) -> str:
        values = net("Add", net("MatMul", latent, net.floats(basis.T)), net.floats(0.5))
        scaled = net("Mul", values, net.floats(255))
        return _to_uint8(net, net("Reshape", scaled, net.ints(-1, 1, height, width)))

    shape: Shape = ("batch", height, width, 1)
    autoencoder = Net(frames=_frames(geometry))
    flat = autoencoder("Flatten", _from_frames(autoencoder), axis=1)
    centred = autoencoder("Sub", autoencoder("Div", flat, autoencoder.floats(255)), autoencoder.floats(0.5))
    latent = autoencoder("MatMul", centred, autoencoder.floats(basis))
    autoencoder.output("reconstruction", decode(autoencoder, latent), "uint8", shape)
    autoencoder.output("latent", latent, "float32", ("batch", latent_dim))
    generator = Net(latent=("float32", ("batch", latent_dim)))
    generator.output("samples", decode(generator, "latent"), "uint8", shape)
    tasks = (Task.SAMPLE, Task.RECONSTRUCT, Task.ENCODE)
    nets = {"autoencoder": autoencoder, "generator": generator}
    return write_folder(folder, Facts(tasks, geometry, version, latent_dim=latent_dim), nets)


def write_clip_scorer(
    folder: Path, *, time: int = 4, warm_up: int | None = None, channels: int = 1, version: str = "1",
    height: int = 16, width: int = 24,
) -> Path:  # fmt: skip
    """Expect the last frame of a clip to be the mean of the whole clip; score as write_scorer does."""
    sizes = {"channels": channels, "height": height, "width": width, "time": time, "warm_up": warm_up}
    geometry = FrameInput.model_validate(sizes)
    net = Net(frames=_frames(geometry))
    clip = net("Transpose", net("Cast", "frames", to=TensorProto.FLOAT), perm=[0, 1, 4, 2, 3])
    last = net("Gather", clip, net("Squeeze", net.ints(time - 1)), axis=1)
    mean = net("ReduceMean", clip, net.ints(1), keepdims=0)
    net.output("anomaly_score", _score(net, last, mean, geometry), "float32", ("batch",))
    return write_folder(folder, Facts((Task.SCORE,), geometry, version, calibrated=True), {"autoencoder": net})


def write_motion_scorer(folder: Path, *, time: int = 5, flow_step: int = 2, version: str = "1") -> Path:
    """Score a clip by the longest vector of its flow; the map is the longest at each pixel."""
    sizes = {"channels": 1, "height": 32, "width": 48, "time": time, "flow_step": flow_step}
    geometry = FrameInput.model_validate(sizes)
    net = Net(frames=_frames(geometry), flow=("float32", ("batch", geometry.flows, 32, 48, 2)))
    squares = net("ReduceSum", net("Mul", "flow", "flow"), net.ints(4), keepdims=0)
    longest = net("ReduceMax", net("Sqrt", squares), net.ints(1), keepdims=0)
    # The graph must look at every input: a pixel of the frames, times nothing.
    pixel = net("ReduceMax", net("Cast", "frames", to=TensorProto.FLOAT), net.ints(1, 2, 3, 4), keepdims=0)
    nothing = net("Unsqueeze", net("Mul", pixel, net.floats(0)), net.ints(1, 2))
    anomaly_map = net("Add", longest, nothing)
    net.output("anomaly_map", anomaly_map, "float32", ("batch", 32, 48))
    net.output("anomaly_score", net("ReduceMax", anomaly_map, net.ints(1, 2), keepdims=0), "float32", ("batch",))
    return write_folder(folder, Facts((Task.SCORE,), geometry, version), {"autoencoder": net})


def write_every_sort(folder: Path) -> Path:
    """Write one model of every sort below `folder`: clips, denoiser, generator, scorer."""
    write_clip_scorer(folder / "clips")
    write_denoiser(folder / "denoiser")
    write_generator(folder / "generator")
    write_scorer(folder / "scorer")
    return folder
