"""The calibrations of a model: thresholds for its cameras, from their normal frames alone."""

import asyncio
import logging
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from runtime import conformal
from runtime.conformal import FalseAlarms, NormalScores
from runtime.errors import (
    CalibrationNotFound,
    CalibrationNotSaved,
    CameraNotFound,
    ImageError,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    TooFewFrames,
    Unauthorized,
)
from runtime.images import Pixels
from runtime.manifest import CameraCalibration, Task
from runtime.model import Model
from service.dependencies import Call, validated
from service.json_reply import JsonReply
from service.openapi import CALIBRATION_BODY, CALIBRATION_FAILURES, parameters, replies
from service.problems import documented
from service.replies import JSON, identity
from service.routes.cameras import CameraPath
from service.schemas import (
    CalibrationQuery,
    CalibrationReply,
    CalibrationRequest,
    CalibrationsReply,
    NoQuery,
    ScoredFrames,
)
from service.scoring import Heatmap, Measuring, Policy, Verdict, fitted
from service.settings import variable
from service.ticket import Ticket
from service.uploads import UploadedImage, media_type_of, read_body
from service.work import Stage

T = TypeVar("T")

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/models/{name}", tags=["calibrations"])

RATE = 0.01  # where neither the request nor the model says another
MAX_SCORES_BYTES = 8 * 2**20  # of JSON: four hundred thousand scores with all their digits


@router.post(
    "/calibrations",
    summary="Calibrate a camera",
    status_code=201,
    responses=replies(CalibrationReply, CALIBRATION_FAILURES, status=201),
    openapi_extra={"parameters": parameters(CalibrationQuery)} | CALIBRATION_BODY,
)
async def calibrate(request: Request, name: str) -> Response:
    """Set the threshold of a camera for a stated false-alarm rate, from its normal frames; nothing is retrained.

    The frames are uploaded, in order, as one clip; or they are those that the camera sent lately, whose scores are
    kept; or only their scores are given. The result is the camera's next version and decides from now on.
    """
    call = Call.of(request)
    query = call.query(CalibrationQuery)
    model = call.model(name, Task.SCORE)
    own = model.manifest.calibration
    promise = FalseAlarms.stated(
        query.false_alarm_rate,
        query.false_alarms_per_hour,
        query.frames_per_second,
        RATE if own is None else own.false_alarm_rate,
    )
    with await call.admit() as ticket:
        if media_type_of(request) == JSON:
            normal, frames = await _known(call, ticket, model, query.camera, promise)
        else:
            normal, frames = await _uploaded(call, ticket, model, promise), "uploaded frames"
        source = query.source or f"{len(normal)} {frames}"
        # Seconds for many frames: in a thread of its own, the workers are for those who wait for a verdict.
        found = await asyncio.to_thread(conformal.calibrate, normal, promise, source, own)
        made = await asyncio.to_thread(call.service.calibrations.add, model.manifest, query.camera, found)
    call.service.metrics.calibrated(model.manifest.name)
    logger.info("calibrated", extra={"model": name, "camera": made.camera, "version": made.version})
    return JsonReply(_as_json(made, in_force=True), 201)


async def _known(
    call: Call, ticket: Ticket, model: Model, camera: str, promise: FalseAlarms
) -> tuple[NormalScores, str]:
    """Take scores out of the body, or those that are kept of the camera."""
    limits = call.service.upload_limits
    body = await read_body(call.request, ticket, min(MAX_SCORES_BYTES, limits.max_bytes), limits.timeout_s)
    wanted = await asyncio.to_thread(validated, "body", CalibrationRequest, body)
    if wanted.scored is not None:
        return _kept(call, model, camera, wanted.scored, promise), "frames scored lately"
    clips = wanted.scores or []
    scores = np.concatenate([np.asarray(clip, np.float64) for clip in clips])
    return NormalScores(scores, np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])), "scores given"


def _kept(call: Call, model: Model, camera: str, wanted: ScoredFrames, promise: FalseAlarms) -> NormalScores:
    clip = call.service.cameras.find(camera).clips.get(model.manifest.name)
    if clip is None or clip.sha256 != model.manifest.sha256:
        raise CameraNotFound(f"camera {camera!r} has sent no frames to these weights of {model.manifest.name}")
    since = None if wanted.since is None else wanted.since.timestamp()
    until = None if wanted.until is None else wanted.until.timestamp()
    learnt = clip.scores.learnt_between(since, until)
    if learnt:
        raise InvalidInput(
            f"{model.manifest.name} was trained on {learnt} of these frames: choose a time without them with since and "
            "until, or DELETE the camera and send frames that it has not seen"
        )
    normal = clip.scores.between(since, until)
    needed, most = promise.frames_needed, call.service.settings.kept_scores
    if needed > most:
        cure = f"the service keeps {most} scores of a camera: set {variable('kept_scores')} to {needed} or more"
        conformal.check_enough(len(normal), promise, cure)
    return normal


async def _uploaded(call: Call, ticket: Ticket, model: Model, promise: FalseAlarms) -> NormalScores:
    """Score the images of the body, each with those before it where the model looks at clips."""
    images = (await call.upload(ticket, call.service.settings.max_calibration_images)).images
    window = model.manifest.input.window
    if len(images) < window.needed:
        raise TooFewFrames(f"{model.manifest.name} looks at clips of {window.needed} frames; {len(images)} were sent")
    conformal.check_enough(len(images) - window.needed + 1, promise)
    verdicts = await _verdicts(ticket, model, images)
    ranges = np.asarray([verdict.map_range or (np.nan, np.nan) for verdict in verdicts])
    scores = np.asarray([verdict.decision.score for verdict in verdicts], np.float64)
    if np.isnan(ranges).any() and np.isfinite(scores).all():
        raise InvalidInput(f"{model.manifest.name} has no anomaly map to calibrate")
    return NormalScores(scores, np.zeros(len(scores), np.intp), ranges[:, 0], ranges[:, 1])


async def _verdicts(ticket: Ticket, model: Model, images: list[UploadedImage]) -> list[Verdict]:
    """Score images as one clip. Each is decoded once, and no more are held decoded than a clip and a stretch have."""
    window = model.manifest.input.window
    held: list[Pixels] = []
    verdicts: list[Verdict] = []
    for start in range(0, len(images), ticket.share):
        stretch = images[start : start + ticket.share]
        held = held[-window.time :]
        ends = range(max(len(held) + 1, window.needed), len(held) + len(stretch) + 1)
        held += _all(await ticket.each([partial(_unseen, ticket, model, image) for image in stretch]), start + 1)
        clips = [held[max(0, end - window.time) : end] for end in ends]
        scored = await ticket.each([partial(_score, ticket, model, clip) for clip in clips])
        verdicts += _all(scored, window.needed + len(verdicts))
    return verdicts


async def _unseen(ticket: Ticket, model: Model, image: UploadedImage) -> Pixels:
    """Decode a frame to the model's size; raise InvalidInput where the weights have learnt from it."""

    def decode() -> Pixels:
        pixels = fitted(model, image)
        if model.has_learnt(pixels):
            raise InvalidInput(f"{model.manifest.name} was trained on this frame: calibrate on frames it has not seen")
        return pixels

    return (await ticket.call(Stage.DECODE, decode)).value


async def _score(ticket: Ticket, model: Model, clip: list[Pixels]) -> Verdict:
    return (await ticket.infer(Measuring(model, [], Policy(None), Heatmap.NONE, clip))).value


def _all(answers: list[T | Exception], number: int) -> list[T]:
    """Return what was found of images, the first of them with this number; raise the first failure."""
    return [_checked(answer, number) for number, answer in enumerate(answers, number)]


def _checked(answer: T | Exception, number: int) -> T:
    if isinstance(answer, ImageError | InvalidInput):
        raise type(answer)(f"image {number}: {answer}") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


@router.get(
    "/calibrations",
    summary="List the calibrations of a model",
    responses=replies(CalibrationsReply, documented(Unauthorized, ModelNotFound, ModelNotReady)),
)
async def list_calibrations(request: Request, name: str) -> Response:
    """Return every version of every camera, the newest first, and which files cannot be used and why."""
    call = Call.of(request)
    call.query(NoQuery)
    model = call.service.store.snapshot.model(name)
    store = call.service.calibrations
    found = await asyncio.to_thread(lambda: list(store.all(name)))
    deciding = await asyncio.to_thread(store.in_force, model.manifest)
    made = [each for each in found if isinstance(each, CameraCalibration)]
    return JsonReply(
        {
            "model": identity(model),
            "calibrations": [_as_json(each, in_force=deciding.get(each.camera) == each) for each in made],
            "failed": [str(each) for each in found if not isinstance(each, CameraCalibration)],
        }
    )


_DELETED = documented(Unauthorized, ModelNotFound, ModelNotReady, CalibrationNotFound, CalibrationNotSaved)


@router.delete("/calibrations/{camera}", summary="Delete a camera's calibration", status_code=204, responses=_DELETED)
async def delete_calibrations(request: Request, name: str, camera: CameraPath) -> Response:
    """Delete all versions of a camera: from now on the model's own calibration decides for it."""
    return await _delete(Call.of(request), name, camera, None)


@router.delete("/calibrations/{camera}/{version}", summary="Delete one version", status_code=204, responses=_DELETED)
async def delete_calibration(
    request: Request, name: str, camera: CameraPath, version: int = Path(ge=1, description="As listed.")
) -> Response:
    """Delete one version; if it was the newest, the one before it decides again."""
    return await _delete(Call.of(request), name, camera, version)


async def _delete(call: Call, name: str, camera: str, version: int | None) -> Response:
    call.query(NoQuery)
    call.service.store.snapshot.model(name)
    await asyncio.to_thread(call.service.calibrations.delete, name, camera, version)
    logger.info("calibration deleted", extra={"model": name, "camera": camera, "version": version})
    return Response(status_code=204)


def _as_json(made: CameraCalibration, *, in_force: bool) -> dict[str, Any]:
    summary = made.model_dump(mode="json", exclude={"scores", "above", "schema_version"})
    return summary | {"false_alarms_per_hour": made.false_alarms_per_hour, "in_force": in_force}
