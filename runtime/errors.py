"""Every failure that the runtime and the service can name.

    ClearwatchError
    ├── ImageError                what was sent is no usable image
    │   ├── UnreadableImage       bytes that no decoder accepts, or that end too early
    │   ├── UnsupportedImage      a format we do not read, or not the one that was claimed
    │   └── ImageTooLarge         more bytes, pixels or images than the limits allow
    ├── InvalidInput              an argument outside what the model or the call accepts
    │   └── TooFewFrames          normal frames that cannot promise the false-alarm rate asked for
    ├── FormatNotOffered          none of the formats asked for can be given
    ├── ModelError
    │   ├── ModelNotFound         no model of that name
    │   ├── ModelNotReady         the model is there but has not passed its checks
    │   ├── OutOfMemory           the device has no memory left for this
    │   ├── TaskNotSupported      the model exists and cannot do this
    │   └── ModelFolderInvalid    checksum, signature, manifest or golden output disagree
    ├── CalibrationError
    │   ├── CalibrationNotFound   no calibration of that camera, or no such version
    │   ├── CalibrationStale      there are some, and all were made for other weights
    │   ├── CalibrationInvalid    a file that is damaged, or does not belong where it lies
    │   └── CalibrationNotSaved   the folder cannot be written
    ├── CameraNotFound            nothing is kept of that camera
    ├── FrameOutOfOrder           a frame older than one already seen of that camera
    ├── DeviceUnavailable         the named execution provider is not on this machine
    ├── Unauthorized              no bearer token, or a wrong one
    ├── Forbidden                 a token that does not open this
    ├── ForeignPage               a web page of another site calls, and nobody needs a token
    ├── Overloaded                the queue is full
    ├── TimedOut                  the request waited longer than its deadline
    ├── UploadTimedOut            the request's body did not arrive in time
    └── ShuttingDown              the service finishes what it has and takes no more

The messages are safe to show to a caller and say what to do. Nothing here knows of HTTP.
"""


class ClearwatchError(Exception):
    """The root of the tree."""


class ImageError(ClearwatchError):
    """What was sent is no usable image."""


class UnreadableImage(ImageError):
    """The bytes are no image, or end too early."""


class UnsupportedImage(ImageError):
    """The format is not one we read, or not the one that was claimed."""


class ImageTooLarge(ImageError):
    """More bytes, pixels or images than the limits allow; `pixels` where these are what it has too many of."""

    def __init__(self, message: str, pixels: int | None = None) -> None:
        super().__init__(message)
        self.pixels = pixels


class InvalidInput(ClearwatchError):
    """An argument is outside what the model or the call accepts."""


class TooFewFrames(InvalidInput):
    """So few normal frames cannot promise the false-alarm rate that was asked for."""


class FormatNotOffered(ClearwatchError):
    """None of the formats asked for can be given."""


class ModelError(ClearwatchError):
    """A model cannot do what was asked."""


class ModelNotFound(ModelError):
    """No model has that name."""


class ModelNotReady(ModelError):
    """The model is there but has not passed its checks."""


class OutOfMemory(ModelError):
    """The device has no memory left for this frame, though the model is well."""


class TaskNotSupported(ModelError):
    """The model exists and cannot do this task."""


class ModelFolderInvalid(ModelError):
    """A model folder breaks its promise: the message names the file, what was expected and what was found."""


class CalibrationError(ClearwatchError):
    """A camera's calibration cannot be used."""


class CalibrationNotFound(CalibrationError):
    """The camera has no calibration for that model, or not that version."""


class CalibrationStale(CalibrationError):
    """All calibrations of the camera were made for other weights than those that are served."""


class CalibrationInvalid(CalibrationError):
    """A calibration's file is damaged, or does not belong where it lies."""


class CalibrationNotSaved(CalibrationError):
    """The folder of the calibrations cannot be written."""


class CameraNotFound(ClearwatchError):
    """Nothing is kept of that camera."""


class FrameOutOfOrder(ClearwatchError):
    """A frame is older than one already seen of that camera."""


class DeviceUnavailable(ClearwatchError):
    """The named execution provider is not on this machine."""


class Unauthorized(ClearwatchError):
    """The bearer token is missing or wrong."""


class Forbidden(ClearwatchError):
    """The bearer token does not open this."""


class ForeignPage(ClearwatchError):
    """A web page of another site may not call where nobody needs a token."""


class Overloaded(ClearwatchError):
    """The queue is full."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TimedOut(ClearwatchError):
    """The request waited longer than its deadline."""


class UploadTimedOut(ClearwatchError):
    """The request's body did not arrive in time."""


class ShuttingDown(ClearwatchError):
    """The service finishes what it has accepted and takes no more."""
