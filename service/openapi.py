"""What FastAPI cannot tell by itself: bodies that the service reads on its own, and the shape of failures."""

from enum import StrEnum
from typing import Any

from fastapi import FastAPI

from runtime import errors
from runtime.images import ImageFormat
from service import problems
from service.middleware import OPEN_PATHS
from service.schemas import CalibrationRequest, Parameters, ProblemReply, SampleRequest, ScoredFrames
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


def _many(*, batch: bool) -> dict[str, Any]:
    return {"type": "array", "minItems": 1} | ({} if batch else {"maxItems": 1})


def _form(several: dict[str, Any]) -> dict[str, Any]:
    parts = several | {"items": _BINARY}
    return {"schema": {"oneOf": [_object(image=parts), _object(file=parts)]}}


def _image_body(*, batch: bool) -> dict[str, Any]:
    """Describe the bodies that images come in: one image, or also several."""
    one, many = _object(image=_BASE64), _object(images=_many(batch=batch) | {"items": _BASE64})
    several = "; multipart/form-data with the field repeated, or `images`, is a batch" if batch else ""
    return {
        "required": True,
        "description": f"One image{several}.",
        "content": {
            **{form.value.media_type: {"schema": _BINARY} for form in ImageFormat},
            "multipart/form-data": _form(_many(batch=batch)),
            "application/json": {"schema": {"oneOf": [one, many]}, "example": {"image": _EXAMPLE}},
        },
    }


SAMPLE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": SampleRequest.model_json_schema()}}}
}
CALIBRATION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Normal frames in order, in a repeated field; or, in JSON, scores, or which scored frames.",
        "content": {
            "multipart/form-data": _form(_many(batch=True)),
            "application/json": {
                "schema": CalibrationRequest.model_json_schema(ref_template="#/components/schemas/{model}")
            },
        },
    }
}

_ALWAYS = (errors.Unauthorized, errors.Overloaded, errors.ShuttingDown, errors.FormatNotOffered)
_MODEL = (errors.ModelNotFound, errors.ModelNotReady, errors.OutOfMemory, errors.TaskNotSupported)
_IMAGE = (errors.UnreadableImage, errors.UnsupportedImage, errors.ImageTooLarge)
_FRAMES = (*_ALWAYS, *_MODEL, *_IMAGE, errors.InvalidInput, errors.TimedOut, errors.UploadTimedOut)
_CALIBRATION = (errors.CalibrationNotFound, errors.CalibrationStale, errors.CalibrationInvalid)
IMAGE_FAILURES = problems.documented(*_FRAMES)
SCORE_FAILURES = problems.documented(*_FRAMES, *_CALIBRATION)
CALIBRATION_FAILURES = problems.documented(
    *_FRAMES, errors.TooFewFrames, errors.CameraNotFound, errors.CalibrationNotSaved
)
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
    status: int = 200,
) -> Responses:
    """Document an endpoint: the JSON it answers with, the images it answers with instead, and how it fails."""
    images = {media_type: {"schema": _BINARY} for media_type in image_types}
    success: Responses = {status: {"model": model, "description": description, "content": images}}
    return success | failures


def takes_images(query: type[Parameters], *, batch: bool = True) -> dict[str, Any]:
    """Document an endpoint that reads images, one or a batch, and these query parameters by itself."""
    return {"requestBody": _image_body(batch=batch), "parameters": parameters(query)}


def parameters(query: type[Parameters]) -> list[dict[str, Any]]:
    """Document the query parameters of an endpoint that reads them by itself."""
    return [_parameter(query, name) for name in query.model_fields]


def _parameter(query: type[Parameters], name: str) -> dict[str, Any]:
    schema = query.model_json_schema(ref_template="#/components/schemas/{model}")["properties"][name]
    return {
        "name": name,
        "in": "query",
        "required": query.model_fields[name].is_required(),
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
            components["schemas"]["ScoredFrames"] = ScoredFrames.model_json_schema()
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path, operations in schema["paths"].items():
                for operation in operations.values() if path not in OPEN_PATHS else ():
                    operation["security"] = [{"token": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _enumeration(values: type[StrEnum]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}
