"""The parameters that endpoints take, and the shapes they answer with."""

import re
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from runtime.engines import Engine
from runtime.manifest import CameraName, Manifest, Task
from service.scoring import Heatmap, State

R = TypeVar("R", bound=BaseModel)

MAX_SAMPLES = 64
MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exact


def _written_out(moment: object) -> object:
    if isinstance(moment, str) and not _DATE.match(moment):
        raise ValueError("a moment is written as RFC 3339 has it: 2026-11-22T03:14:15+00:00")
    if isinstance(moment, str) and _SIGNLESS.match(moment):
        raise ValueError("the offset has lost its sign: in the query of an address, write + as %2B")
    return moment


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")  # pydantic would also take a number, and guess its unit
_SIGNLESS = re.compile(r".{10}[Tt ][0-9:.]+ [0-9]{2}:?[0-9]{2}$")  # a + means a space in a query
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]

Numbers = Annotated[list[FiniteFloat], Field(fail_fast=True)]  # of what is no number the first is told, not a million

ModelParameter = Annotated[str | None, Field(max_length=200, description="A name of /v1/models; absent: the default.")]


class Parameters(BaseModel):
    """Refuses what it does not know: a misspelt parameter is an error, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoQuery(Parameters):
    """No query parameters at all."""


class TimedQuery(Parameters):
    """How long the caller waits."""

    timeout_ms: int | None = Field(
        None,
        ge=1,
        le=3_600_000,
        description="Drop the request with 504 if its work has not begun after so many milliseconds; absent: the "
        "service's own deadline.",
    )


class ModelQuery(TimedQuery):
    """Which model answers."""

    model: ModelParameter = None


class DenoiseQuery(ModelQuery):
    """How to denoise."""

    sigma: FiniteFloat | None = Field(
        None,
        ge=0,
        le=255,
        description="Noise level: sigma of white noise, 0..255 scale; absent: estimated from the frame.",
    )
    strength: FiniteFloat = Field(1, ge=0, le=2, description="Factor on the noise level; 0 leaves the frame as it is.")


class ScoreQuery(ModelQuery):
    """How to score."""

    threshold: FiniteFloat | None = Field(None, description="Decide with this threshold, not the model's.")
    heatmap: Heatmap = Field(Heatmap.NONE, description="Draw the anomaly map as a PNG: by itself, or over the frame.")


class FramesQuery(ScoreQuery):
    """How to score an upload."""

    camera: CameraName | None = Field(None, description="Decide with the calibration of this camera.")

    clip: bool = Field(default=False, description="The images are the frames of one clip, oldest first.")


class CameraQuery(ScoreQuery):
    """How to score a camera's next frame."""

    captured_at: Moment | None = Field(None, description="When the frame was taken, RFC 3339 with its offset.")


class CalibrationQuery(Parameters):
    """Which camera to calibrate, and for how many false alarms."""

    camera: CameraName = Field(description="Letters, digits, dot, dash and underscore.")
    false_alarm_rate: FiniteFloat | None = Field(
        None, ge=1e-9, lt=1, description="Share of normal frames that may alarm."
    )
    false_alarms_per_hour: FiniteFloat | None = Field(
        None, ge=1e-6, le=3.6e6, description="Normal frames that may alarm in an hour, instead of false_alarm_rate."
    )
    frames_per_second: FiniteFloat | None = Field(None, ge=1e-3, le=1000, description="How many will be scored.")
    source: str | None = Field(None, min_length=1, max_length=200, description="Which frames these are, to remember.")


class ScoredFrames(Parameters):
    """Frames that a camera has sent, by the time of their arrival; absent: all whose scores are kept."""

    since: Moment | None = None
    until: Moment | None = None


class CalibrationRequest(Parameters):
    """Normal frames whose scores are known: kept by the service, or given in lists, a list for each clip."""

    scored: ScoredFrames | None = None
    scores: list[Annotated[Numbers, Field(min_length=1)]] | None = Field(None, min_length=1, fail_fast=True)

    @model_validator(mode="after")
    def _one_of_them(self) -> "CalibrationRequest":
        if (self.scored is None) == (self.scores is None):
            raise ValueError('give {"scored": {}} or {"scores": [[...], ...]}; images go into a multipart form')
        return self


class SampleRequest(Parameters):
    """What to draw: `n` latents from the seed, or the given latents."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"n": 16, "seed": 7}, {"model": "faces", "n": 4, "temperature": 0.7}]}
    )

    model: ModelParameter = None
    n: int = Field(1, ge=1, le=MAX_SAMPLES, description="How many images; with latents it must be their number.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Absent: a random one, which the reply tells.")
    latents: list[Numbers] | None = Field(
        None, min_length=1, max_length=MAX_SAMPLES, fail_fast=True, description="[n][latent_dim], used as they are."
    )
    temperature: FiniteFloat = Field(1, ge=0, le=10, description="Standard deviation of the latents drawn.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "SampleRequest":
        if self.latents is None:
            return self
        if "n" in self.model_fields_set and self.n != len(self.latents):
            raise ValueError(f"n is {self.n} but there are {len(self.latents)} latents")
        if {"seed", "temperature"} & self.model_fields_set:
            raise ValueError("latents are used as they are: give neither seed nor temperature with them")
        return self


class ModelIdentity(BaseModel):
    """Which weights answered."""

    name: str
    version: str
    sha256: str


class RegionReply(BaseModel):
    """A connected area of the frame that is above the map threshold."""

    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in 0..1")
    score: float


class TimingReply(BaseModel):
    """Milliseconds; total runs from admission to the verdict and so holds the upload too."""

    queue: float
    decode: float
    inference: float
    encode: float
    total: float


class CalibrationReference(BaseModel):
    """A version of a camera's calibration."""

    camera: str
    version: int


class ScoreReply(BaseModel):
    """The verdict on a frame or a clip."""

    model: ModelIdentity
    score: float | None = Field(description="Raw and unclamped; higher is more anomalous.")
    p_value: float | None = Field(description="Conformal: (1 + calibration frames that score as high) / (1 + n).")
    threshold: float | None
    threshold_source: Literal["camera", "model", "request"] | None
    false_alarm_rate: float | None = Field(description="Share of normal frames that this threshold lets alarm.")
    false_alarms_per_hour: float | None = Field(description="The same at the frame rate of the calibration.")
    calibration: CalibrationReference | None = Field(description="The camera's that decided; null: the model's own.")
    note: str | None = Field(description="Why a camera's calibration did not decide, though there is one.")
    state: State
    anomalous: bool | None = Field(description="score > threshold")
    regions: list[RegionReply]
    heatmap: str | None = Field(description="PNG in base64")
    timing_ms: TimingReply


class CameraReply(ScoreReply):
    """The verdict on a camera's newest frame."""

    camera: str
    captured_at: str | None
    frames: int = Field(description="frames in the clip now")
    needed_frames: int = Field(description="frames in the clip with which the first verdict comes")
    clip_frames: int = Field(description="frames in a full clip")
    repeated: bool = Field(description="the frame had been seen before: this is its verdict from then")


class ClipInfo(BaseModel):
    """What is kept for one model."""

    model: str
    frames: int
    needed_frames: int
    clip_frames: int
    kept_scores: int = Field(description="scores to calibrate from")
    captured_at: str | None
    state: State | None
    score: float | None


class CameraInfo(BaseModel):
    """What is kept of a camera."""

    camera: str
    silent_s: float = Field(description="seconds since its last frame")
    clips: list[ClipInfo]


class CamerasReply(BaseModel):
    """Every camera, the one heard of last first."""

    cameras: list[CameraInfo]


class CalibrationReply(BaseModel):
    """A version of a camera's calibration, without its scores."""

    model: str
    sha256: str = Field(description="of the weights that it is for")
    camera: str
    version: int
    created: str
    in_force: bool = Field(description="it decides for this camera, with the weights that are served")
    count: int = Field(description="normal frames scored")
    clips: int | None
    source: str
    threshold: float
    false_alarm_rate: float
    frames_per_second: float | None
    false_alarms_per_hour: float | None
    effective_count: float | None = Field(description="independent frames that would say as much")
    rate_interval: tuple[float, float] | None = Field(description="95 %, of the false-alarm rate")
    left_out_rate: float | None = Field(description="share of frames above the threshold that other clips set")
    warnings: list[str] = Field(description="why the promise may not hold")
    map_low: float
    map_threshold: float


class CalibrationsReply(BaseModel):
    """All calibrations of a model, the newest of each camera first."""

    model: ModelIdentity
    calibrations: list[CalibrationReply]
    failed: list[str] = Field(description="files that cannot be used, and why")


class ImageReply(BaseModel):
    """An image in JSON, as batches have them."""

    model: ModelIdentity
    image: str = Field(description="base64")
    media_type: str
    noise_level: float | None = None
    anomaly_score: float | None = None


class LatentReply(BaseModel):
    """A frame in the latent space."""

    model: ModelIdentity
    latent: list[float]


class SampleReply(BaseModel):
    """Generated images, and all that is needed to have them again."""

    model: ModelIdentity
    seed: int | None
    latents: list[list[float]]
    images: list[str] = Field(description="PNG in base64")


class TrialReply(BaseModel):
    """How a device did when the fastest was looked for."""

    device: str
    milliseconds: float | None = Field(description="for the golden input; null where nothing was timed")
    refused: str = Field(description="why it cannot be used for this model")


class RunningReply(BaseModel):
    """What computes a model."""

    device: str
    engine: Engine
    target: str = Field(description="an execution provider of onnxruntime, or a precision of OpenVINO")
    trials: list[TrialReply]


class ModelReply(Manifest):
    """A manifest, and what computes the model here."""

    running: RunningReply


class ModelsReply(BaseModel):
    """What is served."""

    models: list[ModelReply]
    defaults: dict[Task, str] = Field(description="the model that answers a task when none is named")
    failed: dict[str, str] = Field(description="why a folder is not served, or not in its newest form")
    loading: list[str]


class ReloadReply(BaseModel):
    """What a reload has changed."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    kept: list[str]
    failed: dict[str, str] = Field(description="why a folder, or defaults.json, is not used as it is now")


class ReadyReply(BaseModel):
    """Whether every model is served, and on what."""

    status: Literal["ready", "loading", "failed", "shutting_down"]
    device: str
    note: str
    models: dict[str, str]
    running: dict[str, str] = Field(description="the device of each model")


class ProblemReply(BaseModel):
    """Any failure: RFC 9457."""

    type: str = Field(description="A stable URI to switch on.")
    title: str
    status: int
    detail: str = Field(description="What went wrong this time, and the cure.")
    instance: str
    request_id: str
    errors: list[dict[str, Any]] | None = Field(None, description="Of a validation: loc, msg and type of each.")


class FailedReply(BaseModel):
    """What stands for an image of a batch that could not be used."""

    error: ProblemReply


class BatchReply(BaseModel, Generic[R]):
    """What is answered to several images, in their order."""

    results: list[R | FailedReply]
