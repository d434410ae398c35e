"""An hour of everything: traffic with known answers, while models are replaced, workers hang and clients misbehave.

A service of its own runs the shipped models. Every reply is compared with the answer that the same models gave when
nothing else was to be done. No request that was accepted may be lost, no answer wrong; memory and open files must not
grow. `make soak`, ten minutes; `make soak ARGS="--minutes 60"`.
"""

import itertools
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.musts import Must, Side, judge
from benchmarks.report import Arguments, Report, parser
from benchmarks.shipped import MODELS
from benchmarks.soaking.disturbances import STEP_LIMIT_S, Patient, disturb, write_models
from benchmarks.soaking.traffic import Call, Caller, Known, Tally, clip_calls, single_calls
from benchmarks.soaking.vitals import Vitals, open_files
from tests.end_to_end.service_process import Served, served
from training.card import Row

SEED = 0
CALLERS = 6  # with calls that stand for themselves, and as many again
CAMERAS = 2  # that send clips
CLIP_MODEL = "walkway"
QUEUE = 16
PATIENCE_S = 60.0  # an accepted request is to be served, however late
MEMORY_GROWTH = 0.05  # of the memory, over the time of the soak
MORE_FILES = 8  # open at the end than at the beginning


@dataclass(frozen=True)
class Options(Arguments):
    """What this benchmark takes besides."""

    minutes: float
    pause: float
    plot: Path


def main() -> None:
    """Soak, print what came back and how the process fared, and exit with 1 where a promise is broken."""
    options = _options()
    report = Report(f"see benchmarks/soak.py; {options.minutes:g} minutes, seed {SEED}")
    with tempfile.TemporaryDirectory() as folder:
        models, spare = Path(folder) / "models", Path(folder) / "spare"
        write_models(MODELS, models, spare)
        with _service(models) as service:
            patient = Patient(service.client, models, spare)
            known = _known(patient)
            files = open_files(service.process.pid)
            tally = Tally()
            with Vitals(service.process.pid) as vitals:
                disturbances, complaints = _soak(patient, known, tally, options)
            ready = service.client.get("/readyz").status_code == 200
            more_files = open_files(service.process.pid) - files
    vitals.draw(options.plot)
    _tell(report, tally, disturbances, complaints, vitals)
    hours = options.minutes / 60
    growth = vitals.slope_per_hour(vitals.memory_mb) * hours / float(np.median(vitals.memory_mb))
    musts = [
        Must("wrong answers", Side.AT_MOST, 0, {"all": len(tally.wrong)}),
        Must("accepted requests that were lost", Side.AT_MOST, 0, {"all": len(tally.lost)}),
        Must("disturbances out of order", Side.AT_MOST, 0, {"all": len(complaints)}),
        Must("growth of memory over the soak", Side.AT_MOST, MEMORY_GROWTH, {"service": growth}),
        Must("more open files at the end", Side.AT_MOST, MORE_FILES, {"service": more_files}),
        Must("ready at the end", Side.AT_LEAST, 1, {"service": int(ready)}),
    ]
    judge(report, musts, options.json)


def _options() -> Options:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=10, metavar="N", help="how long (default: 10)")
    options.add_argument("--pause", type=float, default=5, metavar="S", help="between disturbances (default: 5 s)")
    options.add_argument(
        "--plot", type=Path, default=Path("runs/soak.png"), help="picture of memory, files and threads"
    )
    return Options(**vars(options.parse_args()))


@contextmanager
def _service(models: Path) -> Iterator[Served]:
    settings = {"queue_capacity": QUEUE, "deadline_s": PATIENCE_S, "step_limit_s": STEP_LIMIT_S, "device": "cpu"}
    with served(models, **settings, log_level="error") as service:
        service.client.timeout = httpx.Timeout(PATIENCE_S)
        yield service


def _endless(seed: int) -> Iterator[Call]:
    """Yield the calls that stand for themselves again and again, in an order of its own for each seed."""
    calls = single_calls(SEED)
    random.Random(seed).shuffle(calls)  # noqa: S311
    return itertools.cycle(calls)


def _known(patient: Patient) -> Known:
    """Ask for every answer once, of both versions of the model that is replaced."""
    known = Known()
    for _ in (0, 1):
        known.learn(patient.client, single_calls(SEED))
        patient.replace()
        patient.reload()
    known.learn(patient.client, clip_calls("known", CLIP_MODEL, SEED))
    return known


def _clips(client: httpx.Client, camera: str) -> Iterator[Call]:
    """Send the same clip again and again, and have the camera forgotten in between."""
    while True:
        yield from clip_calls(camera, CLIP_MODEL, SEED)
        client.delete(f"/v1/cameras/{camera}")


def _soak(patient: Patient, known: Known, tally: Tally, options: Options) -> tuple[Counter[str], list[str]]:
    stop, quiet = threading.Event(), threading.Event()
    url = patient.client.base_url
    mixed = [_endless(number) for number in range(CALLERS)]
    cameras = [_clips(patient.client, f"camera-{number}") for number in range(CAMERAS)]
    callers = [Caller(url, calls, known, tally, stop) for calls in (*mixed, *cameras)]
    done, complaints = Counter[str](), []
    seconds = round(60 * options.minutes)
    started = time.monotonic()
    bar = tqdm(total=seconds, desc="soaking", unit="s", disable=None)
    for caller in callers:
        caller.start()
    threading.Timer(seconds, quiet.set).start()
    for name, complaint in disturb(patient, options.pause, SEED, quiet):
        done[name] += 1
        complaints += [] if complaint is None else [complaint]
        bar.update(min(seconds, round(time.monotonic() - started)) - bar.n)
        bar.set_postfix(answers=sum(tally.right.values()), wrong=len(tally.wrong), lost=len(tally.lost))
    stop.set()
    for caller in callers:
        caller.join(2 * PATIENCE_S)
    bar.close()
    return done, complaints


def _tell(report: Report, tally: Tally, disturbances: Counter[str], complaints: Sequence[str], vitals: Vitals) -> None:
    answers: list[Row] = [{"": route, "right answers": count} for route, count in sorted(tally.right.items())]
    report.add("Answers", [*answers, {"": "refused for want of room, and asked again", "right answers": tally.refused}])
    times: list[Row] = [{"": name, "times": count} for name, count in sorted(disturbances.items())]
    report.add("Disturbances", times)
    figures = {"resident MB": vitals.memory_mb, "open files": vitals.files, "threads": vitals.threads}
    rows: list[Row] = [
        {"": name, "least": min(found), "most": max(found), "slope per hour": vitals.slope_per_hour(found)}
        for name, found in figures.items()
    ]
    report.add("Vital signs", rows)
    for complaint in (*tally.wrong, *tally.lost, *complaints)[:20]:
        print(complaint)


if __name__ == "__main__":
    main()
