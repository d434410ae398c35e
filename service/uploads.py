"""The bodies that carry images: raw, multipart or JSON, one handler each, chosen by Content-Type."""

import base64
import binascii
import json
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request

from runtime.errors import ImageError, ImageTooLarge, InvalidInput, UnreadableImage, UnsupportedImage
from runtime.images import BY_MEDIA_TYPE, ImageFormat, Limits, Picture, Size, decode
from service.multipart import Part, read_form
from service.ticket import Ticket
from service.work import NeedsRoom, Stage

FIELDS = ("image", "file")
UNCLAIMED = frozenset({"", "application/octet-stream"})
LARGE = 4  # a frame of more than a quarter of the pixels that are accepted waits its turn
WHITESPACE = string.whitespace.encode()
JSON_SHAPE = 'the JSON must be {"image": "<base64 or data URL>"} or {"images": [...]}, and nothing else'
ACCEPTED = ", ".join(form.value.media_type for form in ImageFormat)


@dataclass(frozen=True)
class UploadLimits:
    """What a request may bring."""

    image: Limits
    max_images: int
    max_bytes: int
    timeout_s: float


@dataclass(slots=True)
class UploadedImage:
    """An encoded image and what its sender says it is; nothing of it has been looked at.

    With `refusal` it is known not to be usable, which is its own reply and does not fail the rest of a batch. With
    `has_room` there is memory for it, however large.
    """

    data: bytes | bytearray
    media_type: str
    limits: Limits
    refusal: ImageError | None = None
    has_room: bool = False

    def decode(self, channels: int | None, fit: Size | None = None) -> Picture:
        """Decode it, to a size where one is given, in a worker thread. Raises an ImageError, or NeedsRoom."""
        if not self.has_room:
            try:
                return self.decode_up_to(self.limits.max_pixels // LARGE, channels, fit)
            except ImageTooLarge as error:
                if error.pixels is not None and error.pixels <= self.limits.max_pixels:
                    raise NeedsRoom(error.pixels, self.grant) from None
        return self.decode_up_to(self.limits.max_pixels, channels, fit)

    def grant(self) -> None:
        """Note that there is memory for it."""
        self.has_room = True

    def decode_up_to(self, max_pixels: int, channels: int | None, fit: Size | None = None) -> Picture:
        """Decode it, to a size where one is given, if it has no more pixels. Raises an ImageError."""
        if self.refusal is not None:
            raise self.refusal
        limits, claimed = Limits(self.limits.max_bytes, max_pixels), _claim(self.media_type)
        return decode(bytes(self.data), channels=channels, claimed=claimed, limits=limits, fit=fit)


@dataclass(frozen=True, slots=True)
class Upload:
    """The images of a request, in order. A batch is answered with a list."""

    images: list[UploadedImage]

    @property
    def is_batch(self) -> bool:
        """Whether there are several."""
        return len(self.images) > 1

    def single(self) -> UploadedImage:
        """Return the only image; raise InvalidInput if there are several."""
        if self.is_batch:
            raise InvalidInput(f"one image a request is expected here; {len(self.images)} were sent")
        return self.images[0]


async def read_upload(request: Request, ticket: Ticket, limits: UploadLimits) -> Upload:
    """Read the body within its limits. Raises ImageError, InvalidInput or UploadTimedOut."""
    media_type = media_type_of(request)
    if media_type in BY_MEDIA_TYPE or media_type == "application/octet-stream":
        data = await read_body(request, ticket, limits.image.max_bytes, limits.timeout_s)
        return Upload([UploadedImage(data, media_type, limits.image)])
    if media_type == "multipart/form-data":
        chunks = _capped(request, ticket, limits.max_bytes)
        async with ticket.arriving(limits.timeout_s):
            parts = await read_form(request.headers["content-type"], chunks, limits.max_images, limits.image.max_bytes)
        return _of_form(parts, limits)
    if media_type == "application/json":
        body = await read_body(request, ticket, limits.max_bytes, limits.timeout_s)
        # Not on the event loop: parsing and base64 of a large body take tens of milliseconds.
        return (await ticket.call(Stage.DECODE, partial(_of_json, body, limits))).value
    raise UnsupportedImage(
        f"the Content-Type is {media_type[:80]!r}; send the image itself with its own type ({ACCEPTED}; with curl: "
        "--data-binary @frame.jpg -H 'Content-Type: image/jpeg'), or multipart/form-data with the field image, "
        'or application/json {"image": "<base64>"}'
    )


def media_type_of(request: Request) -> str:
    """Return what the Content-Type names, without its parameters; empty where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, ticket: Ticket, max_bytes: int, timeout_s: float) -> bytes:
    """Read a whole body; raise ImageTooLarge before more than `max_bytes` are held, UploadTimedOut if it is slow."""
    async with ticket.arriving(timeout_s):
        return b"".join([chunk async for chunk in _capped(request, ticket, max_bytes)])


async def _capped(request: Request, ticket: Ticket, max_bytes: int) -> AsyncIterator[bytes]:
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise ImageTooLarge(f"the body has {declared} bytes; at most {max_bytes} are accepted")
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        ticket.takes(len(chunk))
        if size > max_bytes:
            raise ImageTooLarge(f"the body has more than {max_bytes} bytes, the most that are accepted")
        yield chunk


def _of_form(parts: list[Part], limits: UploadLimits) -> Upload:
    for part in parts:
        if part.name not in FIELDS:
            raise InvalidInput(f"the form has a field {part.name[:80]!r}; images go into the field image (or file)")
    if not parts:
        raise InvalidInput("the form has no field image (or file)")
    too_large = ImageTooLarge(f"the image has more than {limits.image.max_bytes} bytes, the most that are accepted")
    return Upload(
        [
            UploadedImage(part.data, part.content_type, limits.image, too_large if part.oversize else None)
            for part in parts
        ]
    )


def _of_json(body: bytes, limits: UploadLimits) -> Upload:
    _check_extent(body, limits.max_images)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("the body is no JSON") from error
    match content:
        case {"image": str(text), **others} if not others:
            return Upload([_of_text(text, limits)])
        case {"images": list(texts), **others} if not others and texts and all(isinstance(text, str) for text in texts):
            if len(texts) > limits.max_images:
                raise ImageTooLarge(f"{len(texts)} images were sent; at most {limits.max_images} are accepted")
            return Upload([_of_text(text, limits) for text in texts])
    raise InvalidInput(JSON_SHAPE)


def _check_extent(body: bytes, max_images: int) -> None:
    """Refuse what cannot be images before it is parsed: that keeps the GIL to its end, and makes much of `[],[],[]`."""
    if body.count(b"{") > 1 or body.count(b"[") > 1:
        raise InvalidInput(JSON_SHAPE)
    if body.count(b",") > 2 * max_images:  # one before each, and one in each data URL
        raise ImageTooLarge(f"the JSON holds more than {max_images} images, the most that are accepted")


def _of_text(text: str, limits: UploadLimits) -> UploadedImage:
    media_type = ""
    if text.startswith("data:"):
        header, _, text = text.removeprefix("data:").partition(",")
        media_type = header.partition(";")[0].lower()
    try:
        data = base64.b64decode(text.encode("ascii").translate(None, WHITESPACE), validate=True)
    except (binascii.Error, ValueError):
        refusal = UnreadableImage("the image is no base64; an address to fetch it from is not accepted")
        return UploadedImage(b"", media_type, limits.image, refusal)
    return UploadedImage(data, media_type, limits.image)


def _claim(media_type: str) -> ImageFormat | None:
    """Return the format that the sender names, None where none is named."""
    name = media_type.partition(";")[0].strip().lower()
    if name in UNCLAIMED:
        return None
    if name not in BY_MEDIA_TYPE:
        raise UnsupportedImage(f"{name[:80]!r} is not accepted; send one of {ACCEPTED}")
    return BY_MEDIA_TYPE[name]
