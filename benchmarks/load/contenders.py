"""Who takes part: the service on each engine of this machine, and those of the others that are installed."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.servers import Server, Upload
from runtime.devices import DeviceChoice, select_device
from runtime.errors import DeviceUnavailable

OURS = "Clearwatch"
JPEG = {"Content-Type": "image/jpeg"}
BOUNDARY = "frame-of-a-camera"
# More than the connections of any row, so that nothing is refused; see docs/operations.md for what is done when it is.
QUEUE_CAPACITY = 512


def raw(jpeg: bytes, path: str = "/score") -> Upload:
    """Send the image itself."""
    return Upload(path, jpeg, JPEG)


def multipart(jpeg: bytes, path: str = "/score") -> Upload:
    """Send the image as the field `file` of a form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="f.jpg"\r\n'
    body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()
    return Upload(path, body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})


def in_json(jpeg: bytes) -> Upload:
    """Send the image in base64."""
    body = json.dumps({"image": base64.b64encode(jpeg).decode("ascii")}).encode()
    return Upload("/score", body, {"Content-Type": "application/json"})


def tensor(jpeg: bytes) -> Upload:
    """Send the image as KServe's protocol has binary tensors."""
    described = {"name": "jpeg", "shape": [1, len(jpeg)], "datatype": "UINT8"}
    head = json.dumps({"inputs": [described | {"parameters": {"binary_data_size": len(jpeg)}}]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Upload("/v2/models/score/infer", head + jpeg, headers)


@dataclass(frozen=True)
class Peer:
    """Another server: its file below `peers`, the package that must be there, and how it takes an image."""

    name: str
    module: str
    package: str
    upload: Callable[[bytes], Upload]

    def server(self, python: Path, graph: Path, jpeg: bytes, workers: int) -> Server:
        """Return how it is started with a model."""
        environment = {"PEER_MODEL": str(graph.absolute()), "PEER_WORKERS": str(workers)}
        command = [str(python), "-m", f"benchmarks.load.peers.{self.module}"]
        return Server(self.name, command, [self.upload(jpeg)], environment)


PEERS = (
    Peer("FastAPI, the usual tutorial", "tutorial", "fastapi", multipart),
    Peer("FastAPI, threads and raw body", "threads", "fastapi", raw),
    Peer("mosec", "mosec", "mosec", raw),
    Peer("LitServe", "litserve", "litserve", in_json),
    Peer("BentoML", "bento", "bentoml", multipart),
    Peer("Triton (pytriton)", "triton", "pytriton", tensor),
)
MOSEC = PEERS[2].name
BARE_ASGI = Peer("bare ASGI, no work at all", "bare", "uvicorn", raw)


@dataclass(frozen=True)
class Found:
    """The peers that are installed, each with an interpreter that has it, and the names of the others."""

    present: Mapping[str, Path]
    missing: Sequence[str]


def find(peers: Sequence[Peer], pythons: Sequence[Path]) -> Found:
    """Look for the peers in these interpreters, then in our own."""
    present: dict[str, Path] = {}
    for python in (*pythons, Path(sys.executable)):
        packages = _importable(python, {peer.package for peer in peers} | {"onnxruntime", "simplejpeg"})
        if {"onnxruntime", "simplejpeg"} <= packages:
            present |= {peer.name: python for peer in peers if peer.package in packages and peer.name not in present}
    return Found(present, [peer.name for peer in peers if peer.name not in present])


def _importable(python: Path, packages: set[str]) -> set[str]:
    code = "import importlib.util as u, sys; print(*(p for p in sys.argv[1:] if u.find_spec(p)))"
    command = [str(python), "-c", code, *sorted(packages)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())  # noqa: S603


@dataclass(frozen=True)
class Engine:
    """What computes: how it is called in tables, as a device of ours, and by `benchmarks.load.raw`."""

    label: str
    device: DeviceChoice
    raw: str


ENGINES = (
    Engine("onnxruntime fp32", DeviceChoice.CPU, "onnxruntime"),
    Engine("OpenVINO fp32", DeviceChoice.OPENVINO, "openvino-f32"),
    Engine("OpenVINO bf16", DeviceChoice.OPENVINO_BF16, "openvino-bf16"),
)


def engines() -> Iterator[Engine]:
    """Yield the engines that run on this machine, first the one that the peers use."""
    for engine in ENGINES:
        try:
            select_device(engine.device)
        except DeviceUnavailable:
            continue
        yield engine


def ours(models: Path, device: DeviceChoice, workers: int, uploads: Sequence[Upload]) -> Server:
    """Return how our service is started: with its own settings, but for a queue that holds every connection."""
    environment = {
        "CLEARWATCH_MODELS_DIR": str(models.absolute()),
        "CLEARWATCH_DEVICE": device,
        "CLEARWATCH_WORKERS": str(workers),
        "CLEARWATCH_QUEUE_CAPACITY": str(QUEUE_CAPACITY),
    }
    return Server(OURS, [sys.executable, "-m", "service"], uploads, environment, port_variable="CLEARWATCH_PORT")
