"""POST /v1/reconstruct: the frame as the autoencoder remembers it."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.images import Picture, resize
from runtime.manifest import Task
from runtime.model import Model, Outputs
from service.dependencies import Call
from service.negotiation import Accept
from service.openapi import IMAGE_FAILURES, replies, takes_images
from service.replies import IMAGE_TYPES, EncodedImage, answer_with_images, as_sent, encode_as_asked
from service.schemas import BatchReply, ImageReply, ModelQuery
from service.scoring import require_single_frame
from service.ticket import Ticket
from service.uploads import UploadedImage
from service.work import Inputs, Work

router = APIRouter(prefix="/v1", tags=["images"])


class Reconstructing(Work[EncodedImage]):
    """A frame through the autoencoder and back to the size it was sent in."""

    wants = frozenset({"reconstruction", "anomaly_score"})

    def __init__(self, model: Model, image: UploadedImage, accept: Accept) -> None:
        super().__init__(model)
        self._image = image
        self._accept = accept
        self._picture: Picture | None = None

    def prepare(self) -> Inputs:
        """Decode the frame."""
        self._picture = self._image.decode(self.model.manifest.input.channels, fit=self.model.frame_size)
        return Inputs(self._picture.pixels)

    def finish(self, outputs: Outputs) -> EncodedImage:
        """Encode the reconstruction."""
        picture, pixels = self._picture, outputs.reconstruction
        if picture is None or pixels is None:
            raise TypeError("a model with the task reconstruct has the output reconstruction: its manifest says so")
        restored = as_sent(resize(pixels, picture.height, picture.width), picture)
        data, media_type = encode_as_asked(restored, self._accept, picture)
        score = None if outputs.anomaly_score is None else float(outputs.anomaly_score)
        return EncodedImage(data, media_type, {"anomaly_score": score})


@router.post(
    "/reconstruct",
    summary="Reconstruct a frame",
    response_class=Response,
    responses=replies(
        ImageReply | BatchReply[ImageReply],
        IMAGE_FAILURES,
        image_types=IMAGE_TYPES,
        description="The reconstruction, with X-Model and X-Anomaly-Score.",
    ),
    openapi_extra=takes_images(ModelQuery),
)
async def reconstruct(request: Request) -> Response:
    """Return the frame as the autoencoder remembers it, in the size it was sent in."""
    call = Call.of(request)
    query = call.query(ModelQuery)
    model = call.model(query.model, Task.RECONSTRUCT)
    require_single_frame(model)
    accept = call.accept

    async def process(ticket: Ticket, image: UploadedImage) -> EncodedImage:
        return (await ticket.infer(Reconstructing(model, image, accept))).value

    return await answer_with_images(call, model, process)
