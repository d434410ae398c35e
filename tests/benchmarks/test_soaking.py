"""What the soak judges by: answers that are alike, growth that is growth, replies that count as lost."""

import httpx
import numpy as np
import pytest

from benchmarks.soaking.traffic import Call, Known, Tally, alike, clip_calls, single_calls
from benchmarks.soaking.vitals import Vitals
from runtime.images import decode

PIXELS = np.full((4, 4, 3), 100, np.uint8)
CALL = Call("a score", "/v1/score", b"frame")
MODEL = {"name": "scorer", "version": "1", "sha256": "0" * 64}
PROBLEM: dict[str, object] = {"type": "urn:clearwatch:problem:internal"}


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ({"score": 0.5, "regions": [{"box": [0.1, 0.2]}], "state": "normal"}, True),
        ({"score": 0.5 * (1 + 1e-6), "regions": [{"box": [0.1, 0.2]}], "state": "normal"}, True),
        ({"score": 0.51, "regions": [{"box": [0.1, 0.2]}], "state": "normal"}, False),
        ({"score": 0.5, "regions": [], "state": "normal"}, False),
        ({"score": 0.5, "regions": [{"box": [0.1, 0.2]}], "state": "anomalous"}, False),
        ({"score": None, "regions": [{"box": [0.1, 0.2]}], "state": "normal"}, False),
        ({"score": 0.5, "regions": [{"box": [0.1, 0.2]}]}, False),
    ],
)
def test_answers_in_json(found: dict[str, object], same: bool) -> None:  # noqa: FBT001
    assert alike(found, {"score": 0.5, "regions": [{"box": [0.1, 0.2]}], "state": "normal"}) is same


@pytest.mark.parametrize(("apart", "same"), [(0, True), (1, True), (2, False)])
def test_answers_in_pixels(apart: int, same: bool) -> None:  # noqa: FBT001
    other = PIXELS.copy()
    other[0, 0] -= apart
    assert alike(other, PIXELS) is same
    assert not alike(PIXELS[:2], PIXELS)


def test_growth_is_growth_and_bursts_are_not() -> None:
    seconds = [float(second) for second in range(600)]
    flat = [200.0 + 50 * (second % 60 < 10) for second in seconds]
    vitals = Vitals(0, seconds)
    assert vitals.slope_per_hour(flat) == pytest.approx(0)
    assert vitals.slope_per_hour([200 + second / 60 for second in seconds]) == pytest.approx(60, rel=0.01)
    assert vitals.slope_per_hour([100 + min(second, 100) for second in seconds]) == pytest.approx(0), "warming up"


def reply(status: int, content: dict[str, object], **headers: str) -> httpx.Response:
    return httpx.Response(status, json=content, headers=headers, request=httpx.Request("POST", "http://x/v1/score"))


class Answering(httpx.Client):
    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(transport=httpx.MockTransport(lambda _: answer), base_url="http://x")


def test_every_reply_is_right_wrong_refused_or_lost() -> None:
    known, tally = Known(), Tally()
    with Answering(reply(200, {"model": MODEL, "score": 0.5, "timing_ms": {"total": 3}})) as client:
        known.learn(client, [CALL])
    refused = reply(503, PROBLEM, **{"Retry-After": "1"})
    assert not tally.count(CALL, refused, known), "it is asked again"
    for answer in (
        reply(200, {"model": MODEL, "score": 0.5, "timing_ms": {"total": 9}}),
        reply(200, {"model": MODEL, "score": 0.6, "timing_ms": {"total": 9}}),
        reply(200, {"model": MODEL | {"sha256": "1" * 64}, "score": 0.5, "timing_ms": {"total": 9}}),
        reply(500, PROBLEM),
        reply(503, PROBLEM),
        None,
    ):
        assert tally.count(CALL, answer, known)
    assert (sum(tally.right.values()), len(tally.wrong), len(tally.lost), tally.refused) == (1, 2, 3, 1)


def test_a_service_that_does_not_answer_teaches_nothing() -> None:
    with Answering(reply(500, PROBLEM)) as client, pytest.raises(RuntimeError, match="500"):
        Known().learn(client, [CALL])


def test_the_calls_are_the_same_every_time() -> None:
    assert single_calls(0) == single_calls(0)
    assert len({call.name for call in single_calls(0)}) == len(single_calls(0))
    frames = clip_calls("door", "walkway", 0)
    assert len({call.content for call in frames}) == len(frames)
    assert decode(frames[0].content).pixels.shape == (120, 180, 3)
