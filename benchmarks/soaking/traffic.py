"""Mixed traffic whose answers are known beforehand: every reply is held against the one for its frame."""

import itertools
import math
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from runtime.images import ImageFormat, Pixels, decode, encode

PASSING = frozenset({"timing_ms", "captured_at", "camera"})  # of a reply: they depend on the moment and the sender
RTOL = 1e-3  # between runs with one thread and with several, as for golden outputs
LEVELS = 1
PNG = {"Accept": "image/png"}
SIZES = ((120, 160), (240, 320), (480, 640))
FORMATS = (ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP)
IN_JSON = ("/v1/score", "/v1/score?model=scorer", "/v1/encode")
CLIP_FRAMES = 12

Answer = Any  # parsed JSON, or the pixels of an image


@dataclass(frozen=True)
class Call:
    """One request, and the name under which its answer is known."""

    name: str
    path: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, client: httpx.Client) -> httpx.Response:
        """Send it."""
        return client.post(self.path, content=self.content, headers=dict(self.headers))


def answer_of(reply: httpx.Response) -> Answer:
    """Return what a reply says, without what depends on the moment."""
    if reply.headers["content-type"].startswith("image/"):
        return decode(reply.content).pixels
    return {key: value for key, value in reply.json().items() if key not in PASSING}


def alike(found: Answer, known: Answer) -> bool:
    """Compare two answers: numbers to a thousandth, pixels to a level, all else exactly."""
    if isinstance(known, dict):
        return (
            isinstance(found, dict) and found.keys() == known.keys() and all(alike(found[k], known[k]) for k in known)
        )
    if isinstance(known, list):
        return isinstance(found, list) and len(found) == len(known) and all(map(alike, found, known))
    if isinstance(known, np.ndarray):
        return found.shape == known.shape and int(np.abs(found.astype(int) - known).max()) <= LEVELS
    if isinstance(known, float):
        return isinstance(found, float) and math.isclose(found, known, rel_tol=RTOL, abs_tol=1e-6)
    return bool(found == known)


def single_calls(seed: int) -> list[Call]:
    """Return requests that stand for themselves: every endpoint, several sizes and formats."""
    calls = []
    for number, (size, form) in enumerate(itertools.product(SIZES, FORMATS)):
        frame = encode(_frame(*size, seed + number), form)
        sent = {"Content-Type": form.value.media_type}
        calls.append(Call(f"reconstruct {number}", "/v1/reconstruct", frame, sent | PNG))
        calls += [Call(f"{path} {number}", path, frame, sent) for path in IN_JSON]
    for number, height in enumerate((96, 160)):
        noisy = encode(_frame(height, 2 * height, seed + 100 + number), ImageFormat.PNG)
        calls.append(Call(f"denoise {number}", "/v1/denoise", noisy, {"Content-Type": "image/png"}))
    for number in range(3):
        body = f'{{"n": {number + 1}, "seed": {number}}}'.encode()
        calls.append(Call(f"sample {number}", "/v1/sample", body, {"Content-Type": "application/json"}))
    return calls


def clip_calls(camera: str, model: str, seed: int) -> list[Call]:
    """Return the frames of a camera in their order."""
    still = _frame(120, 180, seed).astype(np.int16)
    path = f"/v1/cameras/{camera}/frames?model={model}"
    calls = []
    for number in range(CLIP_FRAMES):
        frame = still.copy()
        frame[40:80, 10 * number : 10 * number + 30] += 60  # somebody walks by
        content = encode(np.clip(frame, 0, 255).astype(np.uint8), ImageFormat.JPEG)
        calls.append(Call(f"{model} clip {number}", path, content, {"Content-Type": "image/jpeg"}))
    return calls


def _frame(height: int, width: int, seed: int) -> Pixels:
    """Draw blots of several sizes, with noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 6, height)[:, None, None], np.linspace(0, 6, width)[:, None]
    phases = generator.uniform(0, 6, (3, 3))
    waves = sum(np.sin((k + 1) * rows + p[0]) * np.cos((k + 1) * columns + p[1]) for k, p in enumerate(phases))
    noisy = 120 + 30 * np.asarray(waves) + generator.normal(0, 8, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


class Known:
    """The answers to calls, by call and by the version of the model that gave them."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], Answer] = {}

    def learn(self, client: httpx.Client, calls: Sequence[Call]) -> None:
        """Ask a service that has nothing else to do. Raises RuntimeError where it does not answer."""
        for call in calls:
            reply = call.send(client)
            if reply.status_code != 200:
                raise RuntimeError(f"{call.name}: {reply.status_code} {reply.text[:200]}")
            self._answers[call.name, _version(reply)] = answer_of(reply)

    def agrees(self, call: Call, reply: httpx.Response) -> bool:
        """Tell whether a reply is the known one."""
        known = self._answers.get((call.name, _version(reply)))
        return known is not None and alike(answer_of(reply), known)


def _version(reply: httpx.Response) -> str:
    """Return which weights answered."""
    if reply.headers["content-type"].startswith("image/"):
        return reply.headers["x-model"]
    return str(reply.json()["model"]["sha256"])


@dataclass
class Tally:
    """What has come back."""

    right: Counter[str] = field(default_factory=Counter)  # by route
    wrong: list[str] = field(default_factory=list)
    refused: int = 0  # 503 with Retry-After
    lost: list[str] = field(default_factory=list)  # neither right nor refused
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, call: Call, reply: httpx.Response | None, known: Known) -> bool:
        """Judge a reply, None for one that never came; return whether the call is done with."""
        with self.lock:
            if reply is None:
                self.lost.append(f"{call.name}: no reply")
            elif reply.status_code == 503 and "retry-after" in reply.headers:
                self.refused += 1
                return False
            elif reply.status_code != 200:
                self.lost.append(f"{call.name}: {reply.status_code} {reply.text[:200]}")
            elif known.agrees(call, reply):
                self.right[call.path.partition("?")[0].replace("/v1/", "")] += 1
            else:
                self.wrong.append(f"{call.name}: {reply.text[:200]}")
        return True


class Caller(threading.Thread):
    """A client that goes through its calls again and again; what is refused it asks once more."""

    def __init__(
        self, url: httpx.URL, calls: Iterator[Call], known: Known, tally: Tally, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=url, timeout=60)
        self._calls = calls
        self._known = known
        self._tally = tally
        self._stop_asked = stop

    def run(self) -> None:
        """Call until told to stop."""
        with self._client:
            for call in self._calls:
                while not self._tally.count(call, self._reply(call), self._known):
                    self._stop_asked.wait(0.05)
                if self._stop_asked.is_set():
                    return

    def _reply(self, call: Call) -> httpx.Response | None:
        try:
            return call.send(self._client)
        except httpx.TransportError:
            return None
