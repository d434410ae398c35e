"""How results become replies: model identities, timings, images in the format that was asked for, and batches."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import cv2
import numpy as np
from fastapi.responses import Response

from runtime.images import BY_MEDIA_TYPE, ImageFormat, Picture, Pixels, encode
from runtime.model import Model
from service.dependencies import Call
from service.json_reply import JsonReply
from service.negotiation import Accept
from service.ticket import Ticket
from service.uploads import UploadedImage
from service.work import Timing

T = TypeVar("T")

JSON = JsonReply.media_type
PNG = ImageFormat.PNG.value.media_type
_AVERAGE = np.full((1, 3), 1 / 3, np.float32)  # of three channels

# A frame is nearly grey where in so many of its pixels the channels are so close. A yellow timestamp makes up to 3 % of
# a small JPEG or WebP, with what it sheds around it; colour noise that one could see leaves hardly a pixel so close.
_GREY_SHARE, _GREY_LEVELS = 0.95, 3
_LOOKED_AT = 1_000_000  # values
IMAGE_TYPES = tuple(form.value.media_type for form in ImageFormat)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A reply image and the numbers that go with it, as `noise_level` or `anomaly_score`."""

    data: bytes
    media_type: str
    numbers: Mapping[str, float | None]

    def as_json(self, model: Model) -> dict[str, Any]:
        """Return it as an object with the image in base64."""
        shown = {"image": in_base64(self.data), "media_type": self.media_type}
        return {"model": identity(model)} | shown | dict(self.numbers)

    def as_response(self, model: Model) -> Response:
        """Return the image itself, the numbers in headers: noise_level is X-Noise-Level."""
        headers = {"X-Model": model.manifest.name}
        for name, number in self.numbers.items():
            if number is not None:
                headers["X-" + name.replace("_", "-").title()] = f"{number:.6g}"
        return Response(self.data, media_type=self.media_type, headers=headers)


def identity(model: Model) -> dict[str, str]:
    """Say which weights answered."""
    manifest = model.manifest
    return {"name": manifest.name, "version": manifest.version, "sha256": model.sha256}


def in_base64(data: bytes) -> str:
    """Return bytes as JSON carries them."""
    return base64.b64encode(data).decode("ascii")


def timing_ms(timing: Timing, total_s: float) -> dict[str, float]:
    """Return where the time went, in milliseconds."""
    return {
        "queue": round(timing.queue * 1000, 3),
        "decode": round(timing.decode * 1000, 3),
        "inference": round(timing.inference * 1000, 3),
        "encode": round(timing.encode * 1000, 3),
        "total": round(total_s * 1000, 3),
    }


def as_sent(pixels: Pixels, picture: Picture) -> Pixels:
    """Return grey for grey: where the channels of the frame are equal, a colour model's answer gets their average.

    A frame whose file held one channel is answered with one; an infrared camera's three equal ones stay three.
    """
    if pixels.shape[2] == 1 or not _channels_are_equal(picture.pixels):
        return pixels
    grey = np.atleast_3d(_average(pixels))
    return grey if picture.grey else np.repeat(grey, pixels.shape[2], axis=2)


def without_colour_noise(pixels: Pixels, frame: Pixels) -> Pixels:
    """Return `pixels`, what a model made of `frame`; where that is nearly grey all over, its channels change alike.

    Few infrared frames are grey to the last pixel: WebP rounds, a recorder writes the time in yellow. A colour model
    would leave colours in their noise. So each channel of the frame gets the average of what the model changed, which
    has no colour, and the yellow keeps its own.
    """
    if pixels.shape[2] == 1 or not _is_nearly_grey(frame):
        return pixels
    change = cv2.subtract(_average(pixels), _average(frame), dtype=cv2.CV_16S)
    changed = [cv2.add(channel, change, dtype=cv2.CV_8U) for channel in cv2.split(frame)]
    return np.asarray(cv2.merge(changed), np.uint8)


def _average(pixels: Pixels) -> Pixels:
    # Ten times as fast as numpy's mean, and without a copy in floats.
    return np.asarray(cv2.transform(pixels, _AVERAGE), np.uint8)


def _is_nearly_grey(frame: Pixels) -> bool:
    """Look at every n-th row: a share needs no more."""
    first, second, third = np.moveaxis(frame[:: 1 + frame.size // _LOOKED_AT], 2, 0)
    high, low = (pick(pick(first, second), third) for pick in (np.maximum, np.minimum))
    return float((high - low <= _GREY_LEVELS).mean()) >= _GREY_SHARE


def _channels_are_equal(pixels: Pixels) -> bool:
    first, *others = np.moveaxis(pixels, 2, 0)
    return all(np.array_equal(first, other) for other in others)


def encode_as_asked(pixels: Pixels, accept: Accept, picture: Picture) -> tuple[bytes, str]:
    """Encode in the format that is most welcome, among equals in that of the picture that was sent."""
    sent = picture.format.value.media_type
    media_type = accept.best((sent, *IMAGE_TYPES)) or sent
    return encode(pixels, BY_MEDIA_TYPE[media_type], lossless=picture.lossless), media_type


async def answer(
    call: Call,
    process: Callable[[Ticket, UploadedImage], Awaitable[T]],
    alone: Callable[[T], Response],
    in_batch: Callable[[T], dict[str, Any]],
) -> Response:
    """Process the images of a request.

    One is answered as `alone` has it. Several are answered in their order as `in_batch` has them, and one that fails
    has its problem in place of a result.
    """
    with await call.admit() as ticket:
        upload = await call.upload(ticket)
        if not upload.is_batch:
            return alone(await process(ticket, upload.single()))
        answers = await ticket.each([partial(process, ticket, image) for image in upload.images])
        results = [call.failure(each) if isinstance(each, Exception) else in_batch(each) for each in answers]
        return JsonReply({"results": results})


async def answer_with_images(
    call: Call, model: Model, process: Callable[[Ticket, UploadedImage], Awaitable[EncodedImage]]
) -> Response:
    """Answer with an image for an image, or with JSON where that is more welcome."""

    def in_json(image: EncodedImage) -> dict[str, Any]:
        return image.as_json(model)

    def alone(image: EncodedImage) -> Response:
        return JsonReply(in_json(image)) if as_json else image.as_response(model)

    as_json = call.accept.require((*IMAGE_TYPES, JSON)) == JSON
    return await answer(call, process, alone, in_json)
