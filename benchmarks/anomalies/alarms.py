"""What an operator would live through: alarms without a cause, and how long after the event the alarm comes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.anomalies.bench import Bench
from benchmarks.anomalies.footage import FRAMES_A_SECOND, Flags, Footage
from benchmarks.anomalies.scorer import Scores
from benchmarks.musts import Must
from training.card import Row

EVENT_RECALL = 0.9
HOUR = 3600 * FRAMES_A_SECOND  # frames


@dataclass(frozen=True)
class Operation:
    """Life under one threshold."""

    threshold: float
    events: int
    found: int
    false_alarms: int
    """Runs of alarmed frames in which nothing anomalous is seen."""
    false_frames: int
    normal_frames: int
    delays: Sequence[int]
    """Frames from the beginning of each found event to its alarm."""


def alarms(bench: Bench) -> tuple[Must, ...]:
    """Report every method under the highest threshold that finds nine events in ten."""
    operations = {name: operate(bench.footage, judged.scores) for name, judged in bench.judged.items()}
    one = next(iter(operations.values()))
    title = (
        f"Alarms, at the highest threshold that finds {EVENT_RECALL:.0%} of {one.events} events; "
        f"{one.normal_frames} normal frames are {one.normal_frames / FRAMES_A_SECOND:.0f} s: "
        f"one false alarm is {HOUR / one.normal_frames:.0f} an hour"
    )
    bench.report.add(title, [_row(name, operation) for name, operation in operations.items()])
    return ()


def _row(name: str, found: Operation) -> Row:
    return {
        "": name,
        "events found": float(found.found),
        "false alarms": float(found.false_alarms),
        "false alarms an hour": HOUR * found.false_alarms / found.normal_frames,
        "normal frames in alarm (%)": 100 * found.false_frames / found.normal_frames,
        "delay, mean (frames)": float(np.mean(found.delays)),
        "delay, longest (frames)": float(max(found.delays)),
    }


def operate(footage: Footage, scores: Scores, recall: float = EVENT_RECALL) -> Operation:
    """Count alarms (score >= threshold) under the highest threshold that finds this share of the events."""
    clips = [(footage.anomalous[clip], scores[clip]) for clip in footage.by_clip()]
    peaks = sorted((float(values[run].max()) for labels, values in clips for run in runs(labels)), reverse=True)
    threshold = peaks[math.ceil(recall * len(peaks)) - 1]
    delays, false_alarms = [], 0
    for labels, values in clips:
        alarmed = values >= threshold
        false_alarms += sum(not labels[run].any() for run in runs(alarmed))
        delays += [int(alarmed[run].argmax()) for run in runs(labels) if alarmed[run].any()]
    normal = ~footage.anomalous
    false_frames = int((scores[normal] >= threshold).sum())
    return Operation(threshold, len(peaks), len(delays), false_alarms, false_frames, int(normal.sum()), delays)


def runs(flags: Flags) -> list[slice]:
    """Return the runs of True in a row, as slices."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [slice(int(start), int(stop)) for start, stop in list(pairwise(edges))[::2]]
