"""What is kept of each camera between its frames: the clip, the last verdict, and the order of arrival."""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from weakref import WeakValueDictionary

from runtime.errors import CameraNotFound, FrameOutOfOrder
from runtime.images import Pixels
from runtime.manifest import FrameInput
from runtime.model import Model
from service.history import ScoreHistory
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
    """The last frames of one camera for one model, and what is remembered of them."""

    geometry: FrameInput
    sha256: str  # of the weights that the verdict and the scores are of
    scores: ScoreHistory
    frames: deque[Pixels]  # at the model's size; none where the model looks at single frames
    seen: deque[FrameKey]  # of the frames in the clip
    captured_at: datetime | None = None  # of the newest frame that said so
    verdict: Verdict | None = None  # on the newest frame, without its heat map

    @classmethod
    def empty(cls, geometry: FrameInput, sha256: str, kept_scores: int) -> "Clip":
        """Begin a clip."""
        held = geometry.time if geometry.time > 1 else 0
        return cls(geometry, sha256, ScoreHistory(kept_scores), deque(maxlen=held), deque(maxlen=geometry.time))

    @property
    def is_warm(self) -> bool:
        """Whether there is a verdict on the newest frame."""
        return len(self.seen) >= self.geometry.window.needed

    @property
    def is_nearly_warm(self) -> bool:
        """Whether there will be one on the next frame."""
        return len(self.seen) + 1 >= self.geometry.window.needed

    def earlier(self) -> list[Pixels]:
        """Return the frames that stand before the next one in its clip."""
        keep = self.geometry.time - 1
        return list(self.frames)[-keep:] if keep else []

    def before_newest(self) -> list[Pixels]:
        """Return the frames that stood before the newest one when it came."""
        return list(self.frames)[:-1]

    def judged_by(self, sha256: str) -> None:
        """Go on with other weights of the same geometry: the frames stay, what the old ones said does not."""
        if sha256 != self.sha256:
            self.sha256, self.verdict = sha256, None
            self.scores.clear()

    def is_newest(self, key: FrameKey) -> bool:
        """Tell whether these are the bytes of the newest frame."""
        return bool(self.seen) and key.digest == self.seen[-1].digest

    def repeats(self, key: FrameKey) -> bool:
        """Tell whether this frame is the newest one again. Raises FrameOutOfOrder if it is an older one."""
        if not self.seen:
            return False
        if self.is_newest(key) or (key.captured_at is not None and key.captured_at == self.captured_at):
            return True
        if key.captured_at is not None and self.captured_at is not None:
            if key.captured_at > self.captured_at:
                return False
            raise FrameOutOfOrder(
                f"the frame was captured at {key.captured_at.isoformat()}, before the last one at "
                f"{self.captured_at.isoformat()}; frames of a camera must come in order, or DELETE the camera"
            )
        if any(key.digest == one.digest for one in self.seen):
            raise FrameOutOfOrder(
                "the frame has been seen, and others after it; where frames can be equal, send captured_at with them"
                if key.captured_at is None
                else "the frame has been seen, and others after it, without captured_at, so which came first cannot be "
                "told; send captured_at with every frame, or DELETE the camera"
            )
        return False

    def repeat(self, key: FrameKey) -> None:
        """Remember the time of a repeated frame where it is newer: what is older comes too late from then on."""
        if key.captured_at is not None and (self.captured_at is None or key.captured_at > self.captured_at):
            self.captured_at = key.captured_at

    def advance(self, frame: Pixels, key: FrameKey, verdict: Verdict) -> None:
        """Take a frame in, once it has its verdict."""
        self.frames.append(frame)
        self.seen.append(key)
        self.captured_at = key.captured_at or self.captured_at
        self.verdict = replace(verdict, heatmap=None)  # a picture of the frame's own size: it can be drawn again
        if verdict.decision.score is not None and verdict.map_range is not None:
            self.scores.add(time.time(), verdict.decision.score, verdict.map_range, learnt=verdict.learnt)


@dataclass(eq=False)
class Camera:
    """One camera. Hold `turn` while a frame is processed: frames are taken one by one, as they arrived."""

    name: str
    seen: float  # on the monotonic clock
    kept_scores: int  # at most, for each model
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    clips: dict[str, Clip] = field(default_factory=dict)

    def clip(self, model: Model) -> Clip:
        """Return the clip for a model; a model that was replaced by one of another geometry starts anew."""
        manifest = model.manifest
        clip = self.clips.get(manifest.name)
        if clip is None or clip.geometry != manifest.input:
            clip = self.clips[manifest.name] = Clip.empty(manifest.input, manifest.sha256, self.kept_scores)
        clip.judged_by(manifest.sha256)
        return clip


class Cameras:
    """The cameras heard of lately: at most `maximum`, each forgotten after `idle_s` of silence."""

    def __init__(
        self,
        maximum: int,
        idle_s: float,
        kept_scores: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maximum = maximum
        self._idle_s = idle_s
        self._kept_scores = kept_scores
        self._metrics = metrics
        self._clock = clock
        self._cameras: OrderedDict[str, Camera] = OrderedDict()  # the longest silent first
        # Those too whose first frame is being processed: they are not kept before it is known to be one.
        self._met: WeakValueDictionary[str, Camera] = WeakValueDictionary()
        metrics.cameras.set_function(lambda: len(self.all()))

    def visit(self, name: str) -> Camera:
        """Return the camera, a new one if need be; it is kept, and was heard of, only once `heard` says so."""
        self._forget_idle()
        camera = self._met.get(name)
        if camera is None:
            camera = self._met[name] = Camera(name, self._clock(), self._kept_scores)
        return camera

    def heard(self, camera: Camera) -> None:
        """Keep a camera that has sent a frame just now, unless it was forgotten since its visit."""
        if self._met.get(camera.name) is not camera:
            return
        if camera.name not in self._cameras:
            self._make_room()
            self._cameras[camera.name] = camera
        camera.seen = self._clock()
        self._cameras.move_to_end(camera.name)

    def find(self, name: str) -> Camera:
        """Return a camera that is known; raise CameraNotFound."""
        self._forget_idle()
        if name not in self._cameras:
            raise CameraNotFound(f"nothing is kept of camera {name!r}; it has sent no frame, or was silent too long")
        return self._cameras[name]

    def forget(self, name: str) -> None:
        """Drop all that is kept of a camera; raise CameraNotFound."""
        self.find(name)
        del self._met[name], self._cameras[name]

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
