"""The frames of a camera, one after another, for models that look at a clip."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from runtime.errors import CalibrationError, CalibrationNotFound, CameraNotFound, Unauthorized
from runtime.images import Pixels
from runtime.manifest import CameraName, Task
from runtime.model import Model
from service.cameras import Camera, Cameras, Clip, FrameKey
from service.dependencies import Call
from service.json_reply import JsonReply
from service.openapi import CAMERA_FAILURES, PLAIN_FAILURES, replies, takes_images
from service.problems import documented
from service.replies import JSON
from service.routes.score import Scored
from service.schemas import CameraInfo, CameraQuery, CameraReply, CamerasReply, NoQuery
from service.scoring import Heatmap, Measuring, Policy, Scoring, Verdict
from service.ticket import Ticket
from service.uploads import UploadedImage
from service.work import Done, Stage, Timing

router = APIRouter(prefix="/v1", tags=["cameras"])

CameraPath = Annotated[CameraName, Path(description="Letters, digits, dot, dash and underscore.")]


@router.post(
    "/cameras/{camera}/frames",
    summary="Score a camera's next frame",
    responses=replies(CameraReply, CAMERA_FAILURES),
    openapi_extra=takes_images(CameraQuery, batch=False),
)
async def score_next_frame(request: Request, camera: CameraPath) -> Response:
    """Score a frame together with those before it.

    `state` is `warming_up` until the model has frames enough. A frame that is sent again, by its bytes or by
    `captured_at`, is answered with its verdict from then and does not count twice; an older one is refused. The
    calibration of the camera decides, where it has one.
    """
    call = Call.of(request)
    query = call.query(CameraQuery)
    model = call.model(query.model, Task.SCORE)
    call.accept.require((JSON,))
    policy = await _policy(call, model, camera, query.threshold)
    with await call.admit() as ticket:
        image = (await call.upload(ticket)).single()
        known = call.service.cameras.visit(camera)
        async with ticket.holding(known.turn):
            turn = Turn(call, ticket, model, policy, query, known.clip(model))
            reply = await turn.take(image)
            call.service.cameras.heard(known)  # not before: what is no image is no sign of life
            return JsonReply({"camera": camera} | reply)


async def _policy(call: Call, model: Model, camera: str, threshold: float | None) -> Policy:
    """Return what judges a camera: one that is not calibrated, or not for these weights, is not left without."""
    try:
        return await call.policy(model, camera, threshold)
    except CalibrationNotFound:
        return Policy(model.manifest.calibration, threshold)
    except CalibrationError as error:
        return Policy(model.manifest.calibration, threshold, note=str(error))


@dataclass(frozen=True, slots=True)
class Turn:
    """The processing of one frame, while the camera's other frames wait."""

    call: Call
    ticket: Ticket
    model: Model
    policy: Policy
    query: CameraQuery
    clip: Clip

    async def take(self, image: UploadedImage) -> dict[str, Any]:
        """Score the frame, unless it is the last one again, and keep it."""
        key = FrameKey.of(image.data, self.query.captured_at)
        if self.clip.repeats(key):
            self.clip.repeat(key)
            return self._reply(await self._again(key, image), repeated=True)
        work = self._work(image, self.clip.earlier())
        done = await self._verdict(work, image, warm=self.clip.is_nearly_warm)
        if work.fitted is not None:
            self.clip.advance(work.fitted, key, done.value)
        decision = done.value.decision
        self.call.service.metrics.scored(self.model.manifest.name, decision.state, decision.score)
        return self._reply(done, repeated=False)

    def _work(self, image: UploadedImage, earlier: list[Pixels]) -> Scoring:
        return Measuring(self.model, [image], self.policy, self.query.heatmap, earlier)

    async def _verdict(self, work: Scoring, image: UploadedImage, *, warm: bool) -> Done[Verdict]:
        if warm:
            return await self.ticket.infer(work)
        decoded = await self.ticket.call(Stage.DECODE, partial(work.read, image))
        return Done(Verdict(self.policy.decide(None)), decoded.timing)

    async def _again(self, key: FrameKey, image: UploadedImage) -> Done[Verdict]:
        """Return the verdict on a repeated frame, by the policy of this request; score anew only where one must.

        Other bytes under the time of that frame are another picture: they are neither scored nor drawn upon.
        """
        known = self.clip.verdict
        done = Done(known or Verdict(self.policy.decide(None)), Timing())
        if self.clip.is_newest(key) and (known is None or self.query.heatmap is not Heatmap.NONE):
            work = self._work(image, self.clip.before_newest())
            done = await self._verdict(work, image, warm=self.clip.is_warm)
        decision = self.policy.decide((known or done.value).decision.score)
        return Done(replace(done.value, decision=decision), done.timing)

    def _reply(self, done: Done[Verdict], *, repeated: bool) -> dict[str, Any]:
        return Scored(self.model, self.policy, done, self.ticket.age_s()).as_json() | {
            "captured_at": _rfc3339(self.clip.captured_at),
            "frames": len(self.clip.seen),
            "needed_frames": self.clip.geometry.window.needed,
            "clip_frames": self.clip.geometry.time,
            "repeated": repeated,
        }


@router.get("/cameras", summary="List the cameras", responses=replies(CamerasReply, PLAIN_FAILURES))
async def list_cameras(request: Request) -> Response:
    """Return every camera whose frames are kept, the one heard of last first."""
    call = Call.of(request)
    call.query(NoQuery)
    cameras = call.service.cameras
    return JsonReply({"cameras": [_info(cameras, camera) for camera in cameras.all()]})


@router.get(
    "/cameras/{camera}",
    summary="Look at a camera",
    responses=replies(CameraInfo, documented(Unauthorized, CameraNotFound)),
)
async def read_camera(request: Request, camera: CameraPath) -> Response:
    """Return what is kept of a camera: how full its clips are, and its last verdicts."""
    call = Call.of(request)
    call.query(NoQuery)
    cameras = call.service.cameras
    return JsonReply(_info(cameras, cameras.find(camera)))


@router.delete(
    "/cameras/{camera}",
    summary="Forget a camera",
    status_code=204,
    responses=documented(Unauthorized, CameraNotFound),
)
async def forget_camera(request: Request, camera: CameraPath) -> Response:
    """Drop the frames that are kept of a camera; its next frame starts a new clip."""
    call = Call.of(request)
    call.query(NoQuery)
    call.service.cameras.forget(camera)
    return Response(status_code=204)


def _info(cameras: Cameras, camera: Camera) -> dict[str, Any]:
    clips = [_clip_info(name, clip) for name, clip in sorted(camera.clips.items())]
    return {"camera": camera.name, "silent_s": round(cameras.silence_s(camera), 3), "clips": clips}


def _clip_info(model: str, clip: Clip) -> dict[str, Any]:
    decision = None if clip.verdict is None else clip.verdict.decision
    return {
        "model": model,
        "frames": len(clip.seen),
        "needed_frames": clip.geometry.window.needed,
        "clip_frames": clip.geometry.time,
        "kept_scores": len(clip.scores),
        "captured_at": _rfc3339(clip.captured_at),
        "state": None if decision is None else decision.state,
        "score": None if decision is None else decision.score,
    }


def _rfc3339(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
