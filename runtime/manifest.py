"""The contract: what a model folder promises. `training` writes it, `runtime` holds it to its word."""

import bisect
import hashlib
import json
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, ValidationError, model_validator

from runtime.clips import Window
from runtime.errors import ModelFolderInvalid

MANIFEST_FILE = "manifest.json"

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """Immutable, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(StrEnum):
    """What a model can be asked to do; the service offers each as one endpoint."""

    DENOISE = "denoise"
    RECONSTRUCT = "reconstruct"
    SCORE = "score"
    SAMPLE = "sample"
    ENCODE = "encode"


class Tensor(Frozen):
    """A named input or output of a graph; a text in `shape` is a dimension that may vary."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}{list(self.shape)}"

    def agrees(self, other: "Tensor") -> bool:
        """Tell whether both are the same but for what their varying dimensions are called."""
        same = self.name == other.name and self.dtype == other.dtype and len(self.shape) == len(other.shape)
        return same and all(
            mine == its or (isinstance(mine, str) and isinstance(its, str))
            for mine, its in zip(self.shape, other.shape, strict=True)
        )


class File(Frozen):
    """A file of the folder, with the checksum it must have."""

    file: FileName
    sha256: Sha256
    bytes: int = Field(gt=0)


class Graph(File):
    """An ONNX file and the signature it must have."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


# The inputs that a graph must have, those that it may have, and the outputs that it may have.
_NAMES: dict[str, tuple[set[str], set[str], set[str]]] = {
    "autoencoder": ({"frames"}, {"noise_level", "flow"}, {"reconstruction", "anomaly_map", "anomaly_score", "latent"}),
    "generator": ({"latent"}, set(), {"samples"}),
    "noise_estimator": ({"frames"}, set(), {"noise_level"}),
}


class Graphs(Frozen):
    """The ONNX graphs of a model: all pixel arithmetic is inside them.

    `autoencoder`: frames (and `noise_level`, for a denoiser, or `flow`, for a model of motion) -> reconstruction,
    anomaly_map, anomaly_score, latent.
    `generator`: latent -> samples. `noise_estimator`: frames -> noise_level.
    """

    autoencoder: Graph
    generator: Graph | None = None
    noise_estimator: Graph | None = None

    def present(self) -> dict[str, Graph]:
        """Return the graphs that are there, by name."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: graph for name, graph in named.items() if graph is not None}

    @model_validator(mode="after")
    def _tensors_have_known_names(self) -> "Graphs":
        for name, graph in self.present().items():
            must, may, gives = _NAMES[name]
            inputs = {tensor.name for tensor in graph.inputs}
            outputs = {tensor.name for tensor in graph.outputs}
            if not (must <= inputs <= must | may and outputs and outputs <= gives):
                raise ValueError(
                    f"the {name} takes {_names(must | may)} and gives {_names(gives)}; "
                    f"this one takes {_names(inputs)} and gives {_names(outputs)}"
                )
        return self


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


class FrameInput(Frozen):
    """The geometry of `frames`: uint8 [batch, height, width, channels], or [batch, time, ...] for a clip.

    Without `height` and `width` the model takes any size, and frames too large for memory are tiled: tiles start
    at multiples of `stride` and overlap by `receptive_field` pixels, so that a tile equals the whole.
    """

    channels: Literal[1, 3]
    height: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    time: int = Field(1, gt=0, description="frames in a clip")
    warm_up: int | None = Field(
        None, gt=0, description="frames that are enough, the first of them repeated before it; absent: all of a clip"
    )
    flow_step: int | None = Field(None, gt=0, description="frames that `flow` reaches over; absent: no such input")
    flow_fields: int | None = Field(
        None, gt=0, description="of flow, the last one up to the newest frame; absent: from the first frame on"
    )
    stride: int = Field(1, gt=0, description="pixels")
    receptive_field: int = Field(0, ge=0, description="pixels that an output pixel looks at, to each side")

    @model_validator(mode="after")
    def _both_or_neither(self) -> "FrameInput":
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width must both be given or both be absent")
        return self

    @model_validator(mode="after")
    def _a_clip_is_warm_at_its_end(self) -> "FrameInput":
        if self.warm_up is not None and self.warm_up > self.time:
            raise ValueError(f"warm_up, {self.warm_up}, must not be more than the {self.time} frames of a clip")
        return self

    @model_validator(mode="after")
    def _flows_fill_the_clip(self) -> "FrameInput":
        if self.flow_fields is not None and not 0 < self.flow_fields * (self.flow_step or 0) < self.time:
            raise ValueError(f"flow_fields must be of a flow_step each, and fit into the {self.time} frames of a clip")
        if self.flow_step is None or self.flow_fields is not None:
            return self
        if self.time == 1 or (self.time - 1) % self.flow_step:
            raise ValueError(f"time must be 1 more than a multiple of flow_step, {self.flow_step}; it is {self.time}")
        return self

    @property
    def window(self) -> Window:
        """The frames that a verdict is of."""
        return Window(self.time, self.time if self.warm_up is None else self.warm_up)

    @property
    def flows(self) -> int:
        """How many flow fields a clip has."""
        return 0 if self.flow_step is None else self.flow_fields or (self.time - 1) // self.flow_step

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The shape of one frame: height, width, channels."""
        return self.height or "height", self.width or "width", self.channels


class Noise(Frozen):
    """The noise that a denoiser was trained for; levels are sigmas of white noise on the 0..255 scale."""

    description: str
    minimum_level: float = Field(ge=0)
    maximum_level: float = Field(gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> "Noise":
        if self.minimum_level > self.maximum_level:
            raise ValueError("minimum_level must not exceed maximum_level")
        return self


class Calibration(Frozen):
    """What held-out normal frames score, the threshold that follows from it, and how far both can be trusted."""

    scores: tuple[FiniteFloat, ...] = Field(min_length=1, description="ascending: of all frames, or with `above`")
    above: tuple[int, ...] | None = Field(None, description="of thinned scores: how many frames score higher than each")
    count: int = Field(gt=0, description="normal frames scored")
    threshold: float
    false_alarm_rate: float = Field(gt=0, lt=1, description="share of normal frames the threshold lets alarm")
    frames_per_second: float | None = Field(None, gt=0, description="at which the alarms of an hour are counted")
    map_low: float = Field(description="median pixel of the anomaly maps: the cold end of a heat map")
    map_threshold: float = Field(description="map value above which a region is reported")
    source: str = Field(description="which frames")
    clips: int | None = Field(None, gt=0, description="recordings that the frames come from")
    effective_count: float | None = Field(None, gt=0, description="independent frames that would say as much")
    rate_interval: tuple[float, float] | None = Field(
        None, description="95 % interval of the share of normal frames that alarm"
    )
    left_out_rate: float | None = Field(
        None, ge=0, le=1, description="share of frames above the threshold that other clips set"
    )
    warnings: tuple[str, ...] = Field((), description="why the promise may not hold")

    @model_validator(mode="after")
    def _in_order(self) -> "Calibration":
        if any(before > after for before, after in pairwise(self.scores)):
            raise ValueError("scores must ascend")
        if self.above is None and len(self.scores) != self.count:
            raise ValueError(f"{len(self.scores)} scores cannot stand for {self.count} frames without `above`")
        if self.above is not None:
            _check_above(self.scores, self.above, self.count)
        if self.map_low > self.map_threshold:
            raise ValueError("map_low must not exceed map_threshold")
        return self

    @property
    def false_alarms_per_hour(self) -> float | None:
        """Normal frames that the threshold lets alarm in an hour; None where no frame rate was stated."""
        return None if self.frames_per_second is None else 3600 * self.frames_per_second * self.false_alarm_rate

    def p_value(self, score: float) -> float:
        """Return the conformal p-value (1 + #{normal scores >= score}) / (1 + n); Vovk et al. 2005.

        Between thinned scores the count is that of the next lower one: the p-value is never too small.
        """
        below = bisect.bisect_left(self.scores, score)  # how many of the scores that were kept
        at_least = self.count - below if self.above is None or below == 0 else self.above[below - 1]
        return (1 + at_least) / (1 + self.count)


def _check_above(scores: tuple[float, ...], above: tuple[int, ...], count: int) -> None:
    falling = all(before > after for before, after in pairwise(above))
    if len(above) != len(scores) or not falling or not (above[0] < count and above[-1] == 0):
        raise ValueError(f"above must fall from less than {count} to 0, a number for each of {len(scores)} scores")
    if any(before == after for before, after in pairwise(scores)):
        raise ValueError("thinned scores must differ")


CameraName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class CameraCalibration(Calibration):
    """A calibration for one camera, made after the export, and the weights that it belongs to."""

    schema_version: Literal[1] = 1
    camera: CameraName
    version: int = Field(ge=1, description="1 for the camera's first; a number is never used again")
    model: ModelName
    sha256: Sha256 = Field(description="of the model's weights")
    created: str = Field(description="RFC 3339")


class Metric(Frozen):
    """One measured figure with everything needed to measure it again."""

    name: str
    value: float
    unit: str = ""
    data_set: str
    protocol: str
    method: str = "this model"
    seed: int | None = None


class Provenance(Frozen):
    """Where the weights come from."""

    created: str = Field(description="RFC 3339")
    commit: str
    libraries: dict[str, str]
    config: JsonValue = Field(description="the resolved training configuration")
    trained_on: tuple[str, ...] = Field((), description="fingerprints of frames that the weights have learnt from")
    command: str | None = Field(None, description="that makes the model, where the recipe alone does not")


class Manifest(Frozen):
    """`manifest.json`, whole."""

    schema_version: Literal[1] = 1
    name: ModelName
    version: str = Field(pattern=r"^[0-9A-Za-z.+-]{1,32}$")
    kind: str
    description: str
    licence: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    input: FrameInput
    graphs: Graphs
    golden: File
    parameters: int = Field(gt=0, description="trained weights")
    latent_dim: int | None = Field(None, gt=0)
    noise: Noise | None = None
    calibration: Calibration | None = None
    metrics: tuple[Metric, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _tasks_have_their_tensors(self) -> "Manifest":
        outputs = {tensor.name for tensor in self.graphs.autoencoder.outputs}
        needed = {
            Task.DENOISE: "reconstruction",
            Task.RECONSTRUCT: "reconstruction",
            Task.SCORE: "anomaly_score",
            Task.ENCODE: "latent",
        }
        for task in self.tasks:
            if task in needed and needed[task] not in outputs:
                raise ValueError(f"task {task} needs the output {needed[task]}, which the graph does not have")
        if Task.SAMPLE in self.tasks and (self.graphs.generator is None or self.latent_dim is None):
            raise ValueError("task sample needs a generator graph and latent_dim")
        return self

    @model_validator(mode="after")
    def _flow_is_asked_for(self) -> "Manifest":
        inputs = {tensor.name for tensor in self.graphs.autoencoder.inputs}
        if ("flow" in inputs) != (self.input.flow_step is not None):
            raise ValueError("input.flow_step must be given where the autoencoder takes flow, and nowhere else")
        return self

    @model_validator(mode="after")
    def _frames_of_a_clip_have_a_size(self) -> "Manifest":
        if self.input.time > 1 and self.input.height is None:
            raise ValueError("a clip needs height and width: its frames are kept between requests, in bounded memory")
        return self

    @model_validator(mode="after")
    def _tensors_have_the_stated_shapes(self) -> "Manifest":
        expected = self._tensors()
        for name in ("autoencoder", "generator"):
            graph = self.graphs.present().get(name)
            for tensor in (*graph.inputs, *graph.outputs) if graph else ():
                if not tensor.agrees(expected[tensor.name]):
                    raise ValueError(f"the {name} has {tensor}; it should be {expected[tensor.name]}")
        return self

    def _tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the contract as this model's geometry has it."""
        height, width, channels = self.input.shape
        clip = (self.input.time,) if self.input.time > 1 else ()
        tensors = (
            Tensor(name="frames", dtype="uint8", shape=("batch", *clip, height, width, channels)),
            Tensor(name="flow", dtype="float32", shape=("batch", self.input.flows, height, width, 2)),
            Tensor(name="noise_level", dtype="float32", shape=("batch",)),
            Tensor(name="reconstruction", dtype="uint8", shape=("batch", height, width, channels)),
            Tensor(name="anomaly_map", dtype="float32", shape=("batch", height, width)),
            Tensor(name="anomaly_score", dtype="float32", shape=("batch",)),
            Tensor(name="latent", dtype="float32", shape=("batch", self.latent_dim or "latent_dim")),
            Tensor(name="samples", dtype="uint8", shape=("batch", height, width, channels)),
        )
        return {tensor.name: tensor for tensor in tensors}

    @property
    def sha256(self) -> str:
        """Identify the weights: the checksum of the first graph, or of all checksums where there are several."""
        sums = [graph.sha256 for graph in self.graphs.present().values()]
        return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder/manifest.json`; raise ModelFolderInvalid with the file and the offending keys."""
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelFolderInvalid(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()[:5])
        raise ModelFolderInvalid(f"{path}: {found}") from error
    if manifest.name != folder.name:
        raise ModelFolderInvalid(
            f"{path}: the name is {manifest.name!r} but the folder is {folder.name!r}; they must agree"
        )
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `folder/manifest.json`, indented for people and stable for diffs."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
