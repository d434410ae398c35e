"""What is kept of each camera between its frames: the clip, the last verdict, and the order of arrival."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from runtime.errors import CameraNotFound, FrameOutOfOrder
from runtime.images import Pixels
from runtime.manifest import FrameInput
from runtime.model import Model
from service.metrics import Metrics
from service.scoring import Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FrameKey:
    """How a frame is recognised when it is sent again."""

    digest: bytes
    captured_at: datetime | None

    @classmethod
    def of(cls, data: bytes | bytearray, captured_at: datetime | None) -> "FrameKey":
        """Take the key of an encoded frame."""
        return cls(hashlib.blake2b(data, digest_size=16).digest(), captured_at)


@dataclass(slots=True)
class Clip:
    """The last frames of one camera for one model."""

    geometry: FrameInput
    frames: deque[Pixels]
    last: FrameKey | None = None
    captured_at: datetime | None = None  # of the newest frame that said so
    verdict: Verdict | None = None

    @property
    def is_nearly_full(self) -> bool:
        """Whether the next frame completes the clip."""
        return len(self.frames) + 1 >= self.geometry.time

    def earlier(self) -> list[Pixels]:
        """Return the frames that stand before the next one in its clip."""
        keep = self.geometry.time - 1
        return list(self.frames)[-keep:] if keep else []

    def repeats(self, key: FrameKey) -> bool:
        """Tell whether this frame is the last one again. Raises FrameOutOfOrder if it is older than that."""
        if self.last is None:
            return False
        if key.captured_at is not None and self.captured_at is not None:
            if key.captured_at < self.captured_at:
                raise FrameOutOfOrder(
                    f"the frame was captured at {key.captured_at.isoformat()}, before the last one at "
                    f"{self.captured_at.isoformat()}; frames of a camera must come in order, or DELETE the camera"
                )
            if key.captured_at == self.captured_at:
                return True
        return key.digest == self.last.digest

    def advance(self, frame: Pixels, key: FrameKey, verdict: Verdict) -> None:
        """Take a frame in, once it has its verdict."""
        self.frames.append(frame)
        self.last = key
        self.captured_at = key.captured_at or self.captured_at
        self.verdict = verdict


@dataclass(eq=False)
class Camera:
    """One camera. Hold `turn` while a frame is processed: frames are taken one by one, as they arrived."""

    name: str
    seen: float  # on the monotonic clock
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    clips: dict[str, Clip] = field(default_factory=dict)

    def clip(self, model: Model) -> Clip:
        """Return the clip for a model; a model that was replaced by one of another geometry starts anew."""
        geometry = model.manifest.input
        clip = self.clips.get(model.manifest.name)
        if clip is None or clip.geometry != geometry:
            clip = self.clips[model.manifest.name] = Clip(geometry, deque(maxlen=geometry.time))
        return clip


class Cameras:
    """The cameras heard of lately: at most `maximum`, each forgotten after `idle_s` of silence."""

    def __init__(
        self, maximum: int, idle_s: float, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._maximum = maximum
        self._idle_s = idle_s
        self._metrics = metrics
        self._clock = clock
        self._cameras: OrderedDict[str, Camera] = OrderedDict()  # the longest silent first
        metrics.cameras.set_function(lambda: len(self._cameras))

    def visit(self, name: str) -> Camera:
        """Return the camera, a new one if need be, and mark it as heard of just now."""
        self._forget_idle()
        camera = self._cameras.get(name)
        if camera is None:
            self._make_room()
            camera = self._cameras[name] = Camera(name, self._clock())
        camera.seen = self._clock()
        self._cameras.move_to_end(name)
        return camera

    def find(self, name: str) -> Camera:
        """Return a camera that is known; raise CameraNotFound."""
        self._forget_idle()
        if name not in self._cameras:
            raise CameraNotFound(f"nothing is kept of camera {name!r}; it has sent no frame, or was silent too long")
        return self._cameras[name]

    def forget(self, name: str) -> None:
        """Drop all that is kept of a camera; raise CameraNotFound."""
        self.find(name)
        del self._cameras[name]

    def drop_if_empty(self, camera: Camera) -> None:
        """Forget a camera none of whose frames could be used."""
        if not any(clip.frames for clip in camera.clips.values()) and self._cameras.get(camera.name) is camera:
            del self._cameras[camera.name]

    def all(self) -> list[Camera]:
        """Return every camera, the one heard of last first."""
        self._forget_idle()
        return list(reversed(self._cameras.values()))

    def silence_s(self, camera: Camera) -> float:
        """Return how long ago the camera's last frame came."""
        return self._clock() - camera.seen

    def _forget_idle(self) -> None:
        long_ago = self._clock() - self._idle_s
        while self._cameras and next(iter(self._cameras.values())).seen < long_ago:
            self._cameras.popitem(last=False)

    def _make_room(self) -> None:
        if len(self._cameras) >= self._maximum:
            name, _ = self._cameras.popitem(last=False)
            self._metrics.cameras_forgotten.inc()
            logger.warning("camera %s is forgotten: more than CLEARWATCH_MAX_CAMERAS=%d send", name, self._maximum)
