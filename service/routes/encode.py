"""POST /v1/encode: where a frame lies in the latent space."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.manifest import Task
from runtime.model import Model, Outputs
from service.dependencies import Call
from service.json_reply import JsonReply
from service.openapi import IMAGE_FAILURES, replies, takes_images
from service.replies import answer, identity
from service.schemas import BatchReply, LatentReply, ModelQuery
from service.scoring import require_single_frame
from service.ticket import Ticket
from service.uploads import UploadedImage
from service.work import Inputs, Work

router = APIRouter(prefix="/v1", tags=["images"])


class Encoding(Work[list[float]]):
    """A frame to its latent."""

    wants = frozenset({"latent"})

    def __init__(self, model: Model, image: UploadedImage) -> None:
        super().__init__(model)
        self._image = image

    def prepare(self) -> Inputs:
        """Decode the frame."""
        return Inputs(self._image.decode(self.model.manifest.input.channels, fit=self.model.frame_size).pixels)

    def finish(self, outputs: Outputs) -> list[float]:
        """Return the latent as JSON has it."""
        return [] if outputs.latent is None else [float(value) for value in outputs.latent]


@router.post(
    "/encode",
    summary="Encode a frame to its latent",
    responses=replies(LatentReply | BatchReply[LatentReply], IMAGE_FAILURES),
    openapi_extra=takes_images(ModelQuery),
)
async def encode(request: Request) -> Response:
    """Return what the autoencoder's bottleneck holds of a frame."""
    call = Call.of(request)
    query = call.query(ModelQuery)
    model = call.model(query.model, Task.ENCODE)
    require_single_frame(model)

    async def process(ticket: Ticket, image: UploadedImage) -> dict[str, Any]:
        return {"model": identity(model), "latent": (await ticket.infer(Encoding(model, image))).value}

    return await answer(call, process, JsonReply, dict)
