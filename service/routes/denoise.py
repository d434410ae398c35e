"""POST /v1/denoise: the frame without its noise."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.manifest import Task
from service.denoising import Denoiser, Wish
from service.denoising import denoise as denoise_one
from service.dependencies import Call
from service.openapi import IMAGE_FAILURES, replies, takes_images
from service.replies import IMAGE_TYPES, EncodedImage, answer_with_images
from service.schemas import BatchReply, DenoiseQuery, ImageReply
from service.ticket import Ticket
from service.uploads import UploadedImage

router = APIRouter(prefix="/v1", tags=["images"])


@router.post(
    "/denoise",
    summary="Denoise a frame",
    response_class=Response,
    responses=replies(
        ImageReply | BatchReply[ImageReply],
        IMAGE_FAILURES,
        image_types=IMAGE_TYPES,
        description="The frame without its noise, with X-Model and X-Noise-Level.",
    ),
    openapi_extra=takes_images(DenoiseQuery),
)
async def denoise(request: Request) -> Response:
    """Remove noise, in the format that was sent or that Accept asks for.

    `X-Noise-Level` is `sigma`, or what was estimated; the model removes that level times `strength`. Frames of any
    size are taken; large ones are computed in tiles that leave no seams.
    """
    call = Call.of(request)
    query = call.query(DenoiseQuery)
    model = call.model(query.model, Task.DENOISE)
    denoiser = Denoiser(model, Wish(query.sigma, query.strength, call.accept), call.service.settings.tile_pixels)

    async def process(ticket: Ticket, image: UploadedImage) -> EncodedImage:
        return await denoise_one(call.service, ticket, denoiser, image)

    return await answer_with_images(call, model, process)
