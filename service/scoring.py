"""From anomaly scores to verdicts: decisions, regions and heat maps, for single frames and for clips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from runtime import heatmaps
from runtime.conformal import map_range
from runtime.errors import InvalidInput
from runtime.images import ImageFormat, Pixels, encode
from runtime.manifest import Calibration, CameraCalibration, Manifest
from runtime.model import Model, Outputs
from service.uploads import UploadedImage
from service.work import Inputs, Work


class Heatmap(StrEnum):
    """How the anomaly map is drawn: not at all, by itself, or over the frame."""

    NONE = "none"
    PNG = "png"
    OVERLAY = "overlay"


class State(StrEnum):
    """What is known of a frame."""

    NORMAL = "normal"
    ANOMALOUS = "anomalous"
    UNCALIBRATED = "uncalibrated"
    WARMING_UP = "warming_up"


@dataclass(frozen=True, slots=True)
class Decision:
    """The part of a verdict that follows from the score and a threshold alone."""

    score: float | None
    p_value: float | None
    threshold: float | None
    threshold_source: str | None
    false_alarm_rate: float | None
    false_alarms_per_hour: float | None
    state: State

    @property
    def anomalous(self) -> bool | None:
        """Whether the score is above the threshold; None where nothing was decided."""
        return {State.NORMAL: False, State.ANOMALOUS: True}.get(self.state)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one frame. `map_range` is the median and the highest pixel of its anomaly map.

    `learnt` tells that the weights are known to have been trained on the frame: no calibration may rest on its score.
    """

    decision: Decision
    regions: tuple[heatmaps.Region, ...] = ()
    heatmap: bytes | None = None  # PNG
    map_range: tuple[float, float] | None = None
    learnt: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What scores are judged by: a calibration, the camera's or the model's, and the request's own threshold."""

    calibration: Calibration | None
    threshold: float | None = None
    note: str | None = None  # why the camera's calibration is not the one that decides

    def decide(self, score: float | None) -> Decision:
        """Compare a score (None: the clip is not full) with the threshold of the request, or else the calibration's.

        With a request's threshold the false-alarm rate is the share of calibration frames that it would let alarm.
        """
        calibration, threshold = self.calibration, self.threshold
        if calibration is None:
            source = None if threshold is None else "request"
            return Decision(score, None, threshold, source, None, None, _state(score, threshold))
        if threshold is None:
            source, rate = self._origin(), calibration.false_alarm_rate
            threshold = calibration.threshold
        else:
            source, rate = "request", calibration.p_value(threshold)
        fps = calibration.frames_per_second
        per_hour = None if fps is None else 3600 * fps * rate
        p_value = None if score is None else calibration.p_value(score)
        return Decision(score, p_value, threshold, source, rate, per_hour, _state(score, threshold))

    def _origin(self) -> str:
        return "camera" if isinstance(self.calibration, CameraCalibration) else "model"

    def as_json(self) -> dict[str, Any]:
        """Return which camera's calibration decides, None for the model's own."""
        made = self.calibration
        named = {"camera": made.camera, "version": made.version} if isinstance(made, CameraCalibration) else None
        return {"calibration": named, "note": self.note}


def _state(score: float | None, threshold: float | None) -> State:
    if score is None:
        return State.WARMING_UP
    if threshold is None:
        return State.UNCALIBRATED
    return State.ANOMALOUS if score > threshold else State.NORMAL


class Scoring(Work[Verdict]):
    """One frame, or the frames of a clip, scored. `earlier` are frames of the clip that are already fitted."""

    wants = frozenset({"anomaly_map", "anomaly_score"})

    def __init__(
        self,
        model: Model,
        images: Sequence[UploadedImage],
        policy: Policy,
        heatmap: Heatmap,
        earlier: Sequence[Pixels] = (),
    ) -> None:
        super().__init__(model)
        _require_drawable(model.manifest, policy, heatmap)
        self._images = images
        self._policy = policy
        self._heatmap = heatmap
        self._earlier = earlier
        self._last_frame: Pixels | None = None  # as it was sent, for the heat map
        self.fitted: Pixels | None = None  # the newest frame at the model's size

    def prepare(self) -> Inputs:
        """Decode the frames and put them behind the earlier ones."""
        frames = [*self._earlier, *map(self.read, self._images)]
        if self.model.manifest.input.time == 1:
            return Inputs(frames[-1])
        if any(frame.shape != frames[0].shape for frame in frames):
            raise InvalidInput("the frames of a clip must have one size; DELETE the camera if its size has changed")
        return Inputs(np.stack(self.model.manifest.input.window.begun(frames)))

    def read(self, image: UploadedImage) -> Pixels:
        """Decode a frame to the model's size, and remember it as the newest."""
        self.fitted = fitted(self.model, image)
        channels = self.model.manifest.input.channels
        # Once more in full to be drawn upon: the score must not depend on whether somebody wants to see it.
        self._last_frame = image.decode(channels).pixels if self._heatmap is not Heatmap.NONE else None
        return self.fitted

    def finish(self, outputs: Outputs) -> Verdict:
        """Decide, find the regions, draw the heat map."""
        calibration = self._policy.calibration
        score = float(outputs.anomaly_score) if outputs.anomaly_score is not None else None
        verdict = Verdict(self._policy.decide(score))
        if calibration is None or outputs.anomaly_map is None:
            return verdict
        return replace(
            verdict,
            regions=tuple(heatmaps.regions(outputs.anomaly_map, calibration)),
            heatmap=self._draw(outputs, calibration),
        )

    def _draw(self, outputs: Outputs, calibration: Calibration) -> bytes | None:
        frame, anomaly_map = self._last_frame, outputs.anomaly_map
        if frame is None or anomaly_map is None:
            return None
        if self._heatmap is Heatmap.OVERLAY:
            return encode(heatmaps.overlay(frame, anomaly_map, calibration), ImageFormat.PNG)
        return encode(heatmaps.colour(anomaly_map, calibration, *frame.shape[:2]), ImageFormat.PNG)


class Measuring(Scoring):
    """A scoring whose verdict also holds what a calibration needs to know of the frame and its anomaly map."""

    def finish(self, outputs: Outputs) -> Verdict:
        """Judge, and measure the map."""
        verdict = super().finish(outputs)
        if outputs.anomaly_map is None:
            return verdict
        low, peak = map_range(outputs.anomaly_map)
        learnt = self.fitted is not None and self.model.has_learnt(self.fitted)
        return replace(verdict, map_range=(float(low), float(peak)), learnt=learnt)


def fitted(model: Model, image: UploadedImage) -> Pixels:
    """Decode a frame to the size that the model looks at."""
    return image.decode(model.manifest.input.channels, fit=model.frame_size).pixels


def _require_drawable(manifest: Manifest, policy: Policy, heatmap: Heatmap) -> None:
    if heatmap is Heatmap.NONE:
        return
    if policy.calibration is None:
        raise InvalidInput(f"{manifest.name} is not calibrated, so a heat map has no scale; ask for heatmap=none")
    if "anomaly_map" not in {tensor.name for tensor in manifest.graphs.autoencoder.outputs}:
        raise InvalidInput(f"{manifest.name} has no anomaly map; ask for heatmap=none")


def require_single_frame(model: Model) -> None:
    """Raise InvalidInput for a model that looks at a clip: one image is not enough for it."""
    time = model.manifest.input.time
    if time > 1:
        raise InvalidInput(
            f"{model.manifest.name} looks at clips of {time} frames: POST the frames one by one to "
            "/v1/cameras/{camera}/frames, or /v1/score?clip=true with all of them in one multipart body"
        )


def as_json(decision: Decision, regions: Sequence[heatmaps.Region]) -> dict[str, Any]:
    """Return the fields of a verdict that do not depend on the request."""
    return {
        "score": decision.score,
        "p_value": decision.p_value,
        "threshold": decision.threshold,
        "threshold_source": decision.threshold_source,
        "false_alarm_rate": decision.false_alarm_rate,
        "false_alarms_per_hour": decision.false_alarms_per_hour,
        "state": decision.state,
        "anomalous": decision.anomalous,
        "regions": [{"box": region.box, "score": region.score} for region in regions],
    }
