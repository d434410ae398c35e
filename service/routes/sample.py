"""POST /v1/sample: images out of the latent space."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from runtime.errors import InvalidInput
from runtime.images import ImageFormat, Pixels, encode
from runtime.manifest import Task
from runtime.model import Floats, Model
from service.dependencies import Call, validated
from service.json_reply import JsonReply
from service.openapi import SAMPLE_BODY, SAMPLE_FAILURES, replies
from service.replies import JSON, PNG, identity, in_base64
from service.schemas import MAX_SEED, NoQuery, SampleReply, SampleRequest
from service.ticket import Ticket
from service.uploads import media_type_of, read_body
from service.work import Stage

router = APIRouter(prefix="/v1", tags=["images"])

GAP_PIXELS = 2
MAX_BODY_BYTES = 4 * 2**20  # 64 latents of a thousand numbers, and much to spare


@dataclass(frozen=True, slots=True)
class Draw:
    """Latents, and the seed they come from; None where the caller gave them."""

    latents: Floats
    seed: int | None


@router.post(
    "/sample",
    summary="Generate images",
    responses=replies(SampleReply, SAMPLE_FAILURES, image_types=(PNG,)),
    openapi_extra=SAMPLE_BODY,
)
async def sample(request: Request) -> Response:
    """Draw latents from a normal distribution and decode them; the same seed gives the same images.

    The first images of a seed do not depend on `n`. With `Accept: image/png` the reply is one grid of them all, its
    seed in `X-Seed`.
    """
    call = Call.of(request)
    call.query(NoQuery)
    as_image = call.accept.require((JSON, PNG)) == PNG
    with await call.admit() as ticket:
        wanted = await _read(call, ticket)
        model = call.model(wanted.model, Task.SAMPLE)
        draw = _draw(wanted, model)
        images = (await ticket.call(Stage.INFERENCE, partial(model.generate, draw.latents))).value
        if as_image:
            png = (await ticket.call(Stage.ENCODE, partial(_encode, [_grid(images)]))).value[0]
            return Response(png, media_type=PNG, headers=_headers(model, draw))
        pngs = (await ticket.call(Stage.ENCODE, partial(_encode, images))).value
        return JsonReply(
            {
                "model": identity(model),
                "seed": draw.seed,
                "latents": draw.latents.tolist(),
                "images": [in_base64(png) for png in pngs],
            }
        )


async def _read(call: Call, ticket: Ticket) -> SampleRequest:
    """Read and check the body; not by FastAPI, which reads before it asks for the token and knows no limit."""
    body = await read_body(call.request, ticket, MAX_BODY_BYTES, call.service.upload_limits.timeout_s)
    media_type = media_type_of(call.request)
    if media_type != JSON:
        raise InvalidInput(f"the Content-Type must be {JSON}; it is {media_type[:80]!r}")
    return validated("body", SampleRequest, body)


def _draw(wanted: SampleRequest, model: Model) -> Draw:
    if wanted.latents is not None:
        return Draw(_given(wanted.latents, model), None)
    seed = secrets.randbelow(MAX_SEED + 1) if wanted.seed is None else wanted.seed
    generator = np.random.Generator(np.random.PCG64(seed))
    latents = generator.standard_normal((wanted.n, model.manifest.latent_dim or 1), np.float32)
    return Draw(latents * np.float32(wanted.temperature), seed)


def _given(latents: list[list[float]], model: Model) -> Floats:
    dim = model.manifest.latent_dim
    if any(len(latent) != dim for latent in latents):
        raise InvalidInput(f"each latent of {model.manifest.name} has {dim} numbers")
    return np.asarray(latents, np.float32)


def _grid(images: Pixels) -> Pixels:
    """Lay [n, h, w, c] out as a near-square with black gaps."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tall, wide = height + GAP_PIXELS, width + GAP_PIXELS
    grid = np.zeros((rows * tall - GAP_PIXELS, columns * wide - GAP_PIXELS, channels), np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * tall, index % columns * wide
        grid[top : top + height, left : left + width] = image
    return grid


def _encode(images: Sequence[Pixels] | Pixels) -> list[bytes]:
    return [encode(image, ImageFormat.PNG) for image in images]


def _headers(model: Model, draw: Draw) -> dict[str, str]:
    return {"X-Model": model.manifest.name} | ({} if draw.seed is None else {"X-Seed": str(draw.seed)})
