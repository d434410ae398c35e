"""What FastAPI cannot tell by itself: bodies that the service reads on its own, and the shape of failures."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from runtime import errors
from runtime.images import ImageFormat
from service import problems
from service.schemas import ProblemReply, SampleRequest

Responses = dict[int | str, dict[str, Any]]

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "description": "base64 or a data URL"}

IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image; multipart/form-data with the field repeated, or `images`, is a batch.",
        "content": {form.value.media_type: {"schema": _BINARY} for form in ImageFormat}
        | {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": _BINARY}},
                    "required": ["image"],
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"image": _BASE64, "images": {"type": "array", "items": _BASE64}},
                },
                "example": {"image": "iVBORw0KGgoAAAANSUhEUgAA…"},
            },
        },
    }
}
SAMPLE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SampleRequest.model_json_schema()}}}
}

_ALWAYS = (errors.Unauthorized, errors.Overloaded, errors.ShuttingDown)
_MODEL = (errors.ModelNotFound, errors.ModelNotReady, errors.TaskNotSupported)
_IMAGE = (errors.UnreadableImage, errors.UnsupportedImage, errors.ImageTooLarge)
IMAGE_FAILURES = problems.documented(
    *_ALWAYS, *_MODEL, *_IMAGE, errors.InvalidInput, errors.TimedOut, errors.UploadTimedOut
)
SAMPLE_FAILURES = problems.documented(
    *_ALWAYS, *_MODEL, errors.ImageTooLarge, errors.InvalidInput, errors.TimedOut, errors.UploadTimedOut
)
PLAIN_FAILURES = problems.documented(errors.Unauthorized)


def replies(
    model: type[BaseModel], failures: Responses, *, image_types: tuple[str, ...] = (), description: str = "OK"
) -> Responses:
    """Document an endpoint: the JSON it answers with, the images it answers with instead, and how it fails."""
    images = {media_type: {"schema": _BINARY} for media_type in image_types}
    # 422 comes with every endpoint: the fullest description of it is the one of `failures`.
    success: Responses = {200: {"model": model, "description": description, "content": images}}
    return success | failures


def describe(app: FastAPI) -> None:
    """Add the problem object, which FastAPI does not see, to the components of the app's schema."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schema["components"]["schemas"]["Problem"] = ProblemReply.model_json_schema()
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way
