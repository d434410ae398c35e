"""POST /v1/score: is this frame unusual, how sure is that, and where."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.errors import InvalidInput
from runtime.manifest import Task
from runtime.model import Model
from service.dependencies import Call
from service.json_reply import JsonReply
from service.openapi import SCORE_FAILURES, replies, takes_images
from service.replies import JSON, PNG, answer, identity, in_base64, timing_ms
from service.schemas import BatchReply, FramesQuery, ScoreReply
from service.scoring import Heatmap, Policy, Scoring, Verdict, as_json, require_single_frame
from service.ticket import Ticket
from service.uploads import Upload, UploadedImage
from service.work import Done

router = APIRouter(prefix="/v1", tags=["anomalies"])


@dataclass(frozen=True, slots=True)
class Scored:
    """A verdict on its way to the caller."""

    model: Model
    policy: Policy
    done: Done[Verdict]
    total_s: float

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as an object."""
        verdict = self.done.value
        heatmap = None if verdict.heatmap is None else in_base64(verdict.heatmap)
        return (
            {"model": identity(self.model)}
            | as_json(verdict.decision, verdict.regions)
            | self.policy.as_json()
            | {"heatmap": heatmap, "timing_ms": timing_ms(self.done.timing, self.total_s)}
        )

    def as_response(self) -> Response:
        """Return the verdict as JSON."""
        return JsonReply(self.as_json())

    def as_image(self) -> Response:
        """Return the heat map itself, the verdict in headers."""
        decision = self.done.value.decision
        headers = {
            "X-Model": self.model.manifest.name,
            "X-Anomaly-Score": f"{decision.score:.6g}",
            "X-State": decision.state,
            "X-Anomalous": str(decision.anomalous).lower(),
        }
        return Response(self.done.value.heatmap, media_type=PNG, headers=headers)


@router.post(
    "/score",
    summary="Score a frame, a batch or a clip",
    responses=replies(ScoreReply | BatchReply[ScoreReply], SCORE_FAILURES, image_types=(PNG,)),
    openapi_extra=takes_images(FramesQuery),
)
async def score(request: Request) -> Response:
    """Compare frames with what is normal.

    `score` is raw; `p_value` is the share of normal calibration frames that score at least as high; `anomalous` is
    `score > threshold`: that of the request, of the `camera` it names, or of the model. Several images are a batch,
    answered with `results` in their order. With `clip=true` they are the frames of one clip. With
    `Accept: image/png` the reply is the heat map itself.
    """
    call = Call.of(request)
    query = call.query(FramesQuery)
    model = call.model(query.model, Task.SCORE)
    if not query.clip:
        require_single_frame(model)
    as_image = call.accept.require((JSON, PNG)) == PNG
    policy = await call.policy(model, query.camera, query.threshold)
    heatmap = Heatmap.PNG if as_image and query.heatmap is Heatmap.NONE else query.heatmap

    async def process(ticket: Ticket, *images: UploadedImage) -> Scored:
        done = await ticket.infer(Scoring(model, images, policy, heatmap))
        decision = done.value.decision
        call.service.metrics.scored(model.manifest.name, decision.state, decision.score)
        return Scored(model, policy, done, ticket.age_s())

    alone = Scored.as_image if as_image else Scored.as_response
    if not query.clip:
        return await answer(call, process, alone, Scored.as_json)
    with await call.admit() as ticket:
        upload = await call.upload(ticket)
        _require_clip(model, upload)
        return alone(await process(ticket, *upload.images))


def _require_clip(model: Model, upload: Upload) -> None:
    window = model.manifest.input.window
    if not window.needed <= len(upload.images) <= window.time:
        frames = f"{window.time}" if window.needed == window.time else f"{window.needed} to {window.time}"
        raise InvalidInput(f"a clip of {model.manifest.name} has {frames} frames; {len(upload.images)} were sent")
