"""What FastAPI cannot tell by itself: bodies that the service reads on its own, and the shape of failures."""

from enum import StrEnum
from typing import Any

from fastapi import FastAPI

from runtime import errors
from runtime.images import ImageFormat
from service import problems
from service.middleware import OPEN_PATHS
from service.schemas import Parameters, ProblemReply, SampleRequest
from service.scoring import Heatmap

Responses = dict[int | str, dict[str, Any]]

_BINARY = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "description": "base64 or a data URL"}

# Sixteen grey pixels: what the JSON bodies show as an example must be an image, for it will be tried.
_EXAMPLE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAAAAACMmsGiAAAAF0lEQVR4AWNkEBAQYHQAEiwggvEAkAAAEEQCCPtjts4AAAAASUVORK5CYII="
)


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _image_body(*, batch: bool) -> dict[str, Any]:
    """Describe the bodies that images come in: one image, or also several."""
    how_many = {"minItems": 1} if batch else {"minItems": 1, "maxItems": 1}
    parts = {"type": "array", "items": _BINARY, **how_many}
    one, many = _object(image=_BASE64), _object(images={"type": "array", "items": _BASE64, **how_many})
    several = "; multipart/form-data with the field repeated, or `images`, is a batch" if batch else ""
    return {
        "required": True,
        "description": f"One image{several}.",
        "content": {
            **{form.value.media_type: {"schema": _BINARY} for form in ImageFormat},
            "multipart/form-data": {"schema": {"oneOf": [_object(image=parts), _object(file=parts)]}},
            "application/json": {"schema": {"oneOf": [one, many]}, "example": {"image": _EXAMPLE}},
        },
    }


SAMPLE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SampleRequest.model_json_schema()}}}
}

_ALWAYS = (errors.Unauthorized, errors.Overloaded, errors.ShuttingDown, errors.FormatNotOffered)
_MODEL = (errors.ModelNotFound, errors.ModelNotReady, errors.TaskNotSupported)
_IMAGE = (errors.UnreadableImage, errors.UnsupportedImage, errors.ImageTooLarge)
_FRAMES = (*_ALWAYS, *_MODEL, *_IMAGE, errors.InvalidInput, errors.TimedOut, errors.UploadTimedOut)
IMAGE_FAILURES = problems.documented(*_FRAMES)
CAMERA_FAILURES = problems.documented(*_FRAMES, errors.FrameOutOfOrder)
SAMPLE_FAILURES = problems.documented(
    *_ALWAYS, *_MODEL, errors.ImageTooLarge, errors.InvalidInput, errors.TimedOut, errors.UploadTimedOut
)
PLAIN_FAILURES = problems.documented(errors.Unauthorized)


def replies(
    model: Any,  # noqa: ANN401 - a model, or a union of models
    failures: Responses,
    *,
    image_types: tuple[str, ...] = (),
    description: str = "OK",
) -> Responses:
    """Document an endpoint: the JSON it answers with, the images it answers with instead, and how it fails."""
    images = {media_type: {"schema": _BINARY} for media_type in image_types}
    success: Responses = {200: {"model": model, "description": description, "content": images}}
    return success | failures


def takes_images(query: type[Parameters], *, batch: bool = True) -> dict[str, Any]:
    """Document an endpoint that reads images, one or a batch, and these query parameters by itself."""
    return {
        "requestBody": _image_body(batch=batch),
        "parameters": [_parameter(query, name) for name in query.model_fields],
    }


def _parameter(query: type[Parameters], name: str) -> dict[str, Any]:
    schema = query.model_json_schema(ref_template="#/components/schemas/{model}")["properties"][name]
    return {
        "name": name,
        "in": "query",
        "required": False,
        "schema": schema,
        "description": schema.get("description", ""),
    }


def describe(app: FastAPI) -> None:
    """Add to the app's schema what FastAPI does not see: the problem object, and where the token is asked for."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            components = schema["components"]
            components["schemas"] |= {"Problem": ProblemReply.model_json_schema(), "Heatmap": _enumeration(Heatmap)}
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in operations.values() if path not in OPEN_PATHS else ():
                    operation["security"] = [{"token": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _enumeration(values: type[StrEnum]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}
