"""Score or denoise many images through a Clearwatch service: recursive, resumable, over HTTP only.

The file stands alone: copy it anywhere. It needs httpx and tqdm, and pyarrow for Parquet.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import csv
import glob
import heapq
import html
import importlib
import itertools
import json
import math
import os
import random
import struct
import sys
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

try:
    import httpx
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed: pip install httpx tqdm", file=sys.stderr)
    raise SystemExit(2) from None

JPEG, PNG, WEBP, BMP = "image/jpeg", "image/png", "image/webp", "image/bmp"
MEDIA_TYPES = {".jpg": JPEG, ".jpeg": JPEG, ".png": PNG, ".webp": WEBP, ".bmp": BMP}
RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
EVERY_IMAGE_STATUSES = frozenset({401, 403, 404, 405})  # they never depend on the image
ONE_IMAGE_STATUSES = frozenset({400, 413, 415})  # unreadable, too large, not what its name says
LONGEST_PAUSE_S = 120.0
RESUME_HINT = "What is done is kept: the same command again goes on from there."

# Failures ---------------------------------------------------------------------------------------------------
#
# BatchError             ends the run
# ├── UsageError         exit code 2
# └── UnreachableError   exit code 3
# ImageError             one image; the others go on


class BatchError(Exception):
    """Ends the whole run with `exit_code`."""

    exit_code = 1


class UsageError(BatchError):
    """The command line (or the service's set-up) has to change before a run can work."""

    exit_code = 2


class UnreachableError(BatchError):
    """The service does not answer, or no longer."""

    exit_code = 3


class ImageError(Exception):
    """One image failed and a repetition would not help."""


# Options ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What both commands take; `timeout` in seconds."""

    sources: list[str]
    out: Path
    root: Path | None
    url: str
    model: str | None
    token: str | None
    concurrency: int
    retries: int
    timeout: float
    restart: bool


@dataclass(frozen=True)
class ScoreOptions(Options):
    """What `score` takes besides."""

    camera: str | None
    threshold: float | None
    heatmaps: Path | None
    heatmap_style: str
    top: int | None
    contact_sheet: Path | None


@dataclass(frozen=True)
class DenoiseOptions(Options):
    """What `denoise` takes besides; `sigma` on the 0..255 scale."""

    sigma: float | None
    strength: float | None
    reference: Path | None
    report: Path | None


# Files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """An image file and its key: the path relative to the root, with forward slashes."""

    key: str
    path: Path
    relative: Path

    @property
    def media_type(self) -> str:
        """Content type by the name's suffix."""
        return MEDIA_TYPES[self.path.suffix.lower()]

    async def read(self) -> bytes:
        """Return the file's bytes, read off the event loop."""
        try:
            return await asyncio.to_thread(self.path.read_bytes)
        except OSError as error:
            raise ImageError(f"cannot read the file: {error.strerror}") from error


def require(module: str, purpose: str) -> Any:  # noqa: ANN401 (a module without known types)
    """Import an optional package, or say which one to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0].replace("PIL", "pillow")
        raise UsageError(f"{purpose} needs {package}: pip install {package}") from error


def absolute(path: Path) -> Path:
    """Return the path without `..`; links are kept, as they may lead out of the root."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() follows links)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path that takes the place of `path` once the block has succeeded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_image(path: Path) -> bool:
    """Tell whether the name has a suffix that the service reads."""
    return path.suffix.lower() in MEDIA_TYPES


def walk(folder: Path) -> Iterator[Path]:
    """Give the images under a folder; hidden files and folders are left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (Path(parent, name) for name in names if not name.startswith("."))
        yield from filter(is_image, visible)


def expand(source: str) -> tuple[Path, Iterable[Path]]:
    """Return base folder and image files of one FOLDER, FILE, GLOB or `-`."""
    path = Path(source)
    if source == "-":
        lines = (os.fsdecode(line.strip(b"\r\n")) for line in sys.stdin.buffer)
        return Path(), [Path(line) for line in lines if line]
    if path.is_dir():
        return path, walk(path)
    if path.is_file():
        return path.parent, [path]
    if glob.has_magic(source):
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)
        matches = map(Path, glob.iglob(source, recursive=True))  # noqa: PTH207 (absolute patterns)
        return Path(*fixed), (match for match in matches if is_image(match) and match.is_file())
    raise UsageError(f"{source}: no such file or folder")


def find_images(options: Options, own: Path | None) -> tuple[Path, list[Image]]:
    """Return root and images in the order of their keys; `own` is a folder of results, left out."""
    found = [expand(source) for source in options.sources]
    bases = [str(absolute(base)) for base, _ in found]
    root = absolute(options.root or Path(os.path.commonpath(bases)))
    results = absolute(own) if own else None
    if results and root.is_relative_to(results):
        raise UsageError(f"{own} contains the images: give a folder of its own for the results")
    images: dict[str, Image] = {}
    for path in map(absolute, itertools.chain.from_iterable(paths for _, paths in found)):
        if not is_image(path):
            raise UsageError(f"{path}: not one of {', '.join(MEDIA_TYPES)}")
        if not path.is_relative_to(root):
            raise UsageError(f"{path} is not under {root}: give --root, such as {path.parent}")
        if results is None or not path.is_relative_to(results):
            relative = path.relative_to(root)
            # A name that is not UTF-8 must not break the output after hours of work.
            key = os.fsencode(relative.as_posix()).decode("utf-8", "backslashreplace")
            images[key] = Image(key, path, relative)
    if not images:
        raise UsageError(f"no images ({', '.join(MEDIA_TYPES)}) in {' '.join(options.sources)}")
    return root, [images[key] for key in sorted(images)]


# HTTP -------------------------------------------------------------------------------------------------------


Outcome = httpx.Response | httpx.RequestError


class Limiter:
    """Concurrency that halves on overload and grows by one a round of successes (AIMD)."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limit = float(maximum)
        self.cuts = 0
        self._active = 0
        self._freed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Wait for a free slot; gives the number of cuts so far, for `overloaded`."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._active < int(self.limit))
            self._active += 1
        try:
            yield self.cuts
        finally:
            self._active -= 1
            async with self._freed:
                self._freed.notify_all()

    def succeeded(self) -> None:
        """Grow by one per `limit` successes."""
        self.limit = min(self.maximum, self.limit + 1 / self.limit)

    def overloaded(self, cuts_at_start: int) -> None:
        """Halve, once for all the requests that were under way together."""
        if cuts_at_start == self.cuts:
            self.cuts += 1
            self.limit = max(1.0, self.limit / 2)


def endpoint(path: str, **parameters: str | float | None) -> httpx.URL:
    """Return the path with its parameters; those that are None are left out."""
    return httpx.URL(path, params={name: value for name, value in parameters.items() if value is not None})


def describe(outcome: Outcome) -> str:
    """Say what went wrong in one line that is the same on every run (no request id)."""
    if isinstance(outcome, httpx.TimeoutException):
        return "no reply in time (--timeout)"
    if isinstance(outcome, httpx.RequestError):
        return f"connection failed ({str(outcome) or type(outcome).__name__})"
    try:
        problem = outcome.json()
        text = problem.get("detail") or problem["title"]
        errors = f" {json.dumps(problem['errors'])}" if problem.get("errors") else ""
    except (ValueError, AttributeError, KeyError):  # from a proxy rather than from the service
        text, errors = outcome.reason_phrase, ""
    return f"{text}{errors} (HTTP {outcome.status_code})"


def pause_s(outcome: Outcome, attempt: int) -> float:
    """Return the seconds to wait: never less than Retry-After asks, else exponential; both with jitter."""
    asked = outcome.headers.get("Retry-After", "") if isinstance(outcome, httpx.Response) else ""
    jitter = random.random()  # noqa: S311 (no secret)
    pause = max(0.05, int(asked)) * (1 + jitter / 4) if asked.isdecimal() else 2.0**attempt * (0.5 + jitter / 2)
    return min(LONGEST_PAUSE_S, pause)


class Service:
    """The service as seen from here: one connection pool, retries that end."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.limiter = Limiter(options.concurrency)
        self._any_success = False
        self._given_up = 0  # in a row
        self._http = httpx.AsyncClient(
            base_url=options.url,
            headers={"Authorization": f"Bearer {options.token}"} if options.token else None,
            timeout=options.timeout,
            limits=httpx.Limits(max_connections=options.concurrency + 1),
        )

    async def __aenter__(self) -> Service:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def check_alive(self) -> None:
        """Raise unless `/healthz` answers."""
        url = self.options.url
        try:
            reply = await self._http.get("/healthz", timeout=min(10.0, self.options.timeout))
        except httpx.RequestError as error:
            raise UnreachableError(f"no service at {url}: {describe(error)}") from error
        if not reply.is_success:
            kind = UsageError if reply.status_code in {401, 403} else UnreachableError
            raise kind(f"{url}/healthz: {describe(reply)}")

    async def post(self, url: httpx.URL, media_type: str, body: bytes) -> httpx.Response:
        """Send one image, again while that may help, and return the successful reply."""
        for attempt in itertools.count():
            async with self.limiter.slot() as cuts:
                outcome = await self._send(url, media_type, body)
                if isinstance(outcome, httpx.Response) and outcome.status_code not in RETRY_STATUSES:
                    self.limiter.succeeded()
                    return self._accept(outcome)
                self.limiter.overloaded(cuts)
            if attempt == self.options.retries:
                break
            await asyncio.sleep(pause_s(outcome, attempt))
        raise await self._give_up(outcome)

    async def _send(self, url: httpx.URL, media_type: str, body: bytes) -> Outcome:
        try:
            return await self._http.post(url, content=body, headers={"Content-Type": media_type})
        except httpx.RequestError as error:
            return error

    def _accept(self, reply: httpx.Response) -> httpx.Response:
        self._given_up = 0
        if reply.is_success:
            self._any_success = True
            return reply
        status = reply.status_code
        # A refusal before any success that is not about the image would hit every other one too.
        foreseen = status in ONE_IMAGE_STATUSES or status >= httpx.codes.INTERNAL_SERVER_ERROR
        if status in EVERY_IMAGE_STATUSES or not (foreseen or self._any_success):
            raise UsageError(f"the service refuses: {describe(reply)}")
        raise ImageError(describe(reply))

    async def _give_up(self, outcome: Outcome) -> Exception:
        """Return whether the image or the service is to blame, when the retries have ended."""
        try:
            await self.check_alive()
        except UnreachableError as error:
            return UnreachableError(f"{error}. {RESUME_HINT}")
        self._given_up += 1
        if self._given_up > self.options.concurrency:
            return UnreachableError(f"the service takes no more images: {describe(outcome)}. {RESUME_HINT}")
        return ImageError(describe(outcome))


Job = Callable[[Service, Image], Awaitable[list[str]]]


async def process(options: Options, images: list[Image], already: int, job: Job) -> Counter[str]:
    """Run the job over the images; counts the labels that it returns for each."""
    counts: Counter[str] = Counter(failed=0)
    pending = iter(images)  # shared: each worker takes the next one
    total = already + len(images)
    hidden = not sys.stderr.isatty()
    async with Service(options) as service:
        await service.check_alive()
        with tqdm(total=total, initial=already, unit="image", disable=hidden) as bar:

            async def work() -> None:
                for image in pending:
                    counts.update(await job(service, image))
                    bar.set_postfix(counts, refresh=False)
                    bar.update()

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(options.concurrency, len(images))):
                        group.create_task(work())
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
    return counts


# Results and their journal ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreRow:
    """One line of the output of `score`: the service's reply for one image, or why there is none."""

    path: str
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    threshold_source: str | None = None
    false_alarm_rate: float | None = None
    state: str | None = None
    anomalous: bool | None = None
    model: str | None = None
    version: str | None = None
    sha256: str | None = None
    regions: list[dict[str, Any]] | None = None
    error: str | None = None

    @classmethod
    def from_reply(cls, path: str, reply: dict[str, Any]) -> ScoreRow:
        """Take the columns out of a reply of `/v1/score`; timings are left out on purpose."""
        model = reply["model"]
        named = {"model": model["name"], "version": model["version"], "sha256": model["sha256"]}
        same = {field.name for field in fields(cls)} - {"path", "error", *named}
        return cls(path=path, **named, **{name: reply.get(name) for name in same})

    @property
    def identity(self) -> str | None:
        """Tell which weights have answered."""
        return f"sha256 {self.sha256}" if self.sha256 else None


@dataclass(frozen=True)
class DenoiseRow:
    """One line of the report of `denoise`: noise level on the 0..255 scale, PSNR against the reference in dB.

    Without a reference the PSNR is missing; that of two equal images is infinite and missing too.
    """

    path: str
    model: str | None = None
    noise_level: float | None = None
    psnr_noisy: float | None = None
    psnr_denoised: float | None = None
    gain: float | None = None
    reference: str | None = None
    error: str | None = None

    @property
    def identity(self) -> str | None:
        """Tell which model has answered."""
        return self.model


R = TypeVar("R", ScoreRow, DenoiseRow)


def columns(kind: type[R]) -> list[str]:
    """Return the names of the columns of an output."""
    return [field.name for field in fields(kind)]


@dataclass(frozen=True)
class Parameters:
    """What all rows of one output must share."""

    url: str
    model: str | None
    root: str


@dataclass(frozen=True)
class ScoreParameters(Parameters):
    """What all scores must share besides."""

    camera: str | None
    threshold: float | None
    heatmap: str


@dataclass(frozen=True)
class DenoiseParameters(Parameters):
    """What all denoised images must share besides."""

    sigma: float | None
    strength: float | None


class Journal(Generic[R]):
    """Append-only file beside the output, or in it: a line of parameters, then one line an image."""

    def __init__(self, path: Path, parameters: Parameters, kind: type[R]) -> None:
        self.path = path
        self.parameters = parameters
        self.kind: type[R] = kind
        self.failed: set[str] = set()
        self.identity: str | None = None  # of the model, as the replies give it
        self._offsets: dict[str, int] = {}  # key -> where its last line begins
        self._torn = False
        self._file: BinaryIO | None = None

    def load(self) -> None:
        """Take up what an earlier run has done; refuse if it had other parameters."""
        with self.path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):  # killed while it wrote its first line
                return
            self._check(header)
            offset = len(header)
            for line in file:
                self._torn = not line.endswith(b"\n")
                # A torn line counts as not done: that image is scored again.
                with contextlib.suppress(ValueError, TypeError):
                    self._remember(self.kind(**json.loads(line)), offset)
                offset += len(line)

    def _check(self, header: bytes) -> None:
        cure = "give the same, another --out, or --restart"
        try:
            before = json.loads(header)["clearwatch_journal"]
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{self.path} is not a journal of this program: {cure}") from error
        for name, now in asdict(self.parameters).items():
            if before.get(name) != now:
                changed = f"{name} {before.get(name)!r}, not {now!r}"
                raise UsageError(f"{self.path} was begun with {changed}: {cure}")

    def _remember(self, row: R, offset: int) -> None:
        self._offsets[row.path] = offset
        (self.failed.add if row.error else self.failed.discard)(row.path)
        self.identity = self.identity or row.identity

    def is_done(self, key: str) -> bool:
        """Tell whether the image has a result; failed ones are tried again."""
        return key in self._offsets and key not in self.failed

    def admit(self, row: R) -> BinaryIO:
        """Return the file, with its line of parameters, unless another model has made the row."""
        if row.identity and self.identity not in {None, row.identity}:
            raise UsageError(
                f"the model on the server has changed ({self.identity} before, {row.identity} "
                "now) and its results do not compare: give another --out, or --restart"
            )
        self._file = self._file or self._open()
        return self._file

    def append(self, row: R) -> None:
        """Write one result so that a killed process does not lose it."""
        file = self.admit(row)
        offset = file.tell()
        file.write(json.dumps(asdict(row)).encode() + b"\n")
        file.flush()
        self._remember(row, offset)

    def _open(self) -> BinaryIO:
        # Only now, with the first result: a run that never began leaves no journal behind.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("ab" if self._offsets else "wb")
        if not self._offsets:
            header = {"clearwatch_journal": asdict(self.parameters)}
            file.write(json.dumps(header).encode())
        if self._torn or not self._offsets:
            file.write(b"\n")
        file.flush()
        return file

    def close(self) -> None:
        """Close the file; the journal itself stays."""
        if self._file:
            self._file.close()

    def rows(self) -> Iterator[R]:
        """Give all rows in the order of their paths, read one at a time."""
        if not self._offsets:
            return
        with self.path.open("rb") as file:
            for key in sorted(self._offsets):
                file.seek(self._offsets[key])
                yield self.kind(**json.loads(file.readline()))


def open_journal(journal: Journal[R], outputs: Iterable[Path], *, restart: bool) -> Journal[R]:
    """Return the journal of these outputs, with what an earlier run has done."""
    if restart:
        return journal
    if journal.path.exists():
        journal.load()
    elif found := next(filter(Path.exists, outputs), None):
        raise UsageError(
            f"{found} exists but not its journal {journal.path}: give another --out, or --restart to replace it"
        )
    return journal


# Outputs ----------------------------------------------------------------------------------------------------


def flat(row: R) -> dict[str, Any]:
    """Return the row for a table: lists as JSON text."""
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in asdict(row).items()}


def write_jsonl(rows: Iterable[R], path: Path, _: type[R]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def write_csv(rows: Iterable[R], path: Path, kind: type[R]) -> None:
    """Write a header line, then a line a row; what is missing is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns(kind), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = flat(row).items()
            writer.writerow({name: json.dumps(cell) if isinstance(cell, bool) else cell for name, cell in cells})


def write_parquet(rows: Iterable[R], path: Path, kind: type[R]) -> None:
    """Write row groups of 10,000, with types that hold when a column is all null."""
    pyarrow, parquet = (require(name, "Parquet") for name in ("pyarrow", "pyarrow.parquet"))
    types = {"float | None": pyarrow.float64(), "bool | None": pyarrow.bool_()}
    schema = pyarrow.schema([(field.name, types.get(str(field.type), pyarrow.string())) for field in fields(kind)])
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := [flat(row) for row in itertools.islice(remaining, 10_000)]:
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


WRITERS: dict[str, Callable[[Iterable[Any], Path, type[Any]], None]] = {
    ".jsonl": write_jsonl,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def check_output(option: str, path: Path) -> None:
    """Raise UsageError where no table can be written: now, not after hours of work."""
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"{option} {path}: the suffix must be one of {', '.join(WRITERS)}")
    if path.suffix.lower() == ".parquet":
        require("pyarrow.parquet", "Parquet")


def write_table(rows: Iterable[R], path: Path, kind: type[R]) -> None:
    """Write the rows in the format that the suffix names, whole or not at all."""
    with replacing(path) as temporary:
        WRITERS[path.suffix.lower()](rows, temporary, kind)


SHEET_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Highest anomaly scores</title>
<style>
:root { color-scheme: dark }
body { margin: 0; padding: 2rem; background: #0e1116; color: #e6e9ee; font: 15px/1.45 system-ui, sans-serif }
h1 { margin: 0 0 .25rem; font-size: 1.4rem; font-weight: 600 }
header p { margin: 0 0 1.75rem; color: #9aa4b2 }
main { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)) }
figure { margin: 0; overflow: hidden; border: 1px solid #262c36; border-radius: 12px; background: #161b22 }
figure.anomalous { border-color: #c2453f }
img, .gone { display: block; width: 100%; aspect-ratio: 16 / 10; object-fit: contain; background: #000 }
.gone { display: grid; place-items: center; color: #9aa4b2 }
figcaption { padding: .8rem 1rem 1rem }
.numbers { display: flex; gap: 1rem; align-items: baseline; font-variant-numeric: tabular-nums }
.score { font-size: 1.2rem; font-weight: 600 }
.state { margin-left: auto; padding: .1rem .6rem; border-radius: 99px; background: #262c36; font-size: .8rem }
.anomalous .state { background: #c2453f; color: #fff }
.path { margin-top: .4rem; color: #9aa4b2; font: .82rem ui-monospace, monospace; overflow-wrap: anywhere }
</style></head><body>
"""


def embedded(path: Path) -> str:
    """Return an `img` element that holds the file itself."""
    try:
        text = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return '<div class="gone">the image is no longer there</div>'
    return f'<img alt="" src="data:{MEDIA_TYPES[path.suffix.lower()]};base64,{text}">'


def card(row: ScoreRow, picture: Path) -> str:
    """Return one figure of the contact sheet."""
    p_value = "" if row.p_value is None else f"<span>p = {row.p_value:.4g}</span>"
    mark = ' class="anomalous"' if row.anomalous else ""
    return (
        f'<figure{mark}>{embedded(picture)}<figcaption><div class="numbers">'
        f'<span class="score">{row.score:.6g}</span>{p_value}'
        f'<span class="state">{html.escape(str(row.state))}</span></div>'
        f'<div class="path">{html.escape(row.path)}</div></figcaption></figure>\n'
    )


def write_contact_sheet(rows: Iterable[ScoreRow], options: ScoreOptions, root: Path) -> Path | None:
    """Write an HTML page of the highest scores that needs no other file, if asked for; return its path."""
    if options.top is None and options.contact_sheet is None:
        return None
    path = options.contact_sheet or options.out.with_name(f"{options.out.name}.top.html")
    scored = ((row.score, row) for row in rows if row.score is not None)
    top = heapq.nsmallest(options.top or 20, scored, key=lambda pair: (-pair[0], pair[1].path))
    overlays = options.heatmaps if options.heatmap_style == "overlay" else None
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        names = {f"{row.model} {row.version}" for _, row in top}
        file.write(f"{SHEET_HEAD}<header><h1>Highest anomaly scores</h1>\n<p>{len(top)} images")
        file.write(f" · model {html.escape(', '.join(sorted(names)))}</p></header><main>\n")
        for _, row in top:
            overlay = overlays / f"{row.path}.png" if overlays else None
            file.write(card(row, overlay if overlay and overlay.exists() else root / row.path))
        file.write("</main></body></html>\n")
    return path


# score ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreJob:
    """Score one image, save its heat map, then journal it."""

    url: httpx.URL
    journal: Journal[ScoreRow]
    heatmaps: Path | None

    async def __call__(self, service: Service, image: Image) -> list[str]:
        """Return the labels to count for this image."""
        try:
            reply = await service.post(self.url, image.media_type, await image.read())
            row = self._take(image, reply)
        except ImageError as error:
            row = ScoreRow(path=image.key, error=str(error))
        self.journal.append(row)
        return ["failed"] if row.error else ["scored", *(["anomalous"] if row.anomalous else [])]

    def _take(self, image: Image, response: httpx.Response) -> ScoreRow:
        try:
            reply = response.json()
            row = ScoreRow.from_reply(image.key, reply)
            picture = base64.b64decode((reply.get("heatmap") or "").rpartition(",")[2])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{response.url} does not answer as a Clearwatch service") from error
        if self.heatmaps and picture:
            with replacing(self.heatmaps / f"{image.key}.png") as temporary:
                temporary.write_bytes(picture)
        return row


def score(options: ScoreOptions) -> int:
    """Score every image that has no score yet and write the whole output."""
    check_output("--out", options.out)
    root, images = find_images(options, own=options.heatmaps)
    heatmap = options.heatmap_style if options.heatmaps else "none"
    parameters = ScoreParameters(options.url, options.model, str(root), options.camera, options.threshold, heatmap)
    beside = Journal(options.out.with_name(f".{options.out.name}.journal"), parameters, ScoreRow)
    journal = open_journal(beside, [options.out], restart=options.restart)
    pending = [image for image in images if not journal.is_done(image.key)]
    query = {"camera": options.camera, "threshold": options.threshold, "heatmap": heatmap}
    url = endpoint("/v1/score", model=options.model, **query)
    job = ScoreJob(url, journal, options.heatmaps)
    already = len(images) - len(pending)
    counts: Counter[str] = Counter()
    with contextlib.closing(journal):
        if pending:
            counts = asyncio.run(process(options, pending, already, job))
    write_table(journal.rows(), options.out, ScoreRow)
    sheet = write_contact_sheet(journal.rows(), options, root)
    print(
        f"{counts['scored']} scored, {counts['anomalous']} anomalous, {counts['failed']} failed, "
        f"{already} done before: {options.out}{f', {sheet}' if sheet else ''}"
    )
    return 1 if counts["failed"] else 0


# Metadata ---------------------------------------------------------------------------------------------------
#
# The service answers with pixels alone, turned upright. Here they get back what their source says of them.

EXIF_MARK = b"Exif\0\0"
JPEG_JFIF, JPEG_EXIF, JPEG_ICC = b"\xff\xe0JFIF\0", b"\xff\xe1" + EXIF_MARK, b"\xff\xe2ICC_PROFILE\0"
JPEG_XMP = b"\xff\xe1http://ns.adobe.com/xap/1.0/\0", b"\xff\xe1http://ns.adobe.com/xmp/extension/\0"
JPEG_KEPT = (JPEG_EXIF, *JPEG_XMP, JPEG_ICC, b"\xff\xfe")  # marker and first bytes of the segments; the last: comments
ICC_HEADER = 18  # bytes of a JPEG segment before its part of the profile
PNG_MARK = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR = frozenset({b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP"})
PNG_KEPT = PNG_COLOUR | {b"eXIf", b"pHYs", b"tEXt", b"zTXt", b"iTXt"}
WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # in the VP8X chunk, for what the file holds


def upright(exif: bytes) -> bytes:
    """Return an Exif block with Orientation 1, as the service has turned the pixels; empty where it is damaged."""
    head = EXIF_MARK if exif.startswith(EXIF_MARK) else b""
    tiff = bytearray(exif[len(head) :])
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        directory = struct.unpack_from(f"{order}I", tiff, 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", tiff, directory)[0]):
            at = directory + 2 + 12 * entry
            if struct.unpack_from(f"{order}H", tiff, at)[0] == 0x0112:
                # Nothing moves, so offsets in maker notes stay right.
                struct.pack_into(f"{order}H", tiff, at + 8, 1)
    except struct.error:
        return b""
    return head + bytes(tiff)


def jpeg_segments(jpeg: bytes) -> Iterator[bytes]:
    """Give the whole segments before the scan, each with its marker and length."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if at + 4 <= end <= len(jpeg):
            yield jpeg[at:end]
        at = max(end, at + 4)


def jpeg_metadata(jpeg: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give kind and whole of the segments to keep: Exif, XMP, colour profile, comments."""
    for segment in jpeg_segments(jpeg):
        for kind in filter((segment[:2] + segment[4:]).startswith, JPEG_KEPT):
            if kind != JPEG_EXIF:
                yield kind, segment
            elif exif := upright(segment[4:]):
                yield kind, segment[:4] + exif


def with_density(head: bytes, source: bytes) -> bytes:
    """Return the first bytes of a JPEG with its source's pixels an inch, where both have a JFIF header for them."""
    densities = (each[11:16] for each in jpeg_segments(source) if each[:2] + each[4:9] == JPEG_JFIF and len(each) >= 18)
    density = next(densities, None)
    return head[:13] + density + head[18:] if density and head[2:4] + head[6:11] == JPEG_JFIF else head


def with_jpeg_metadata(clean: bytes, source: bytes) -> bytes:
    """Return the JPEG with its source's metadata, but for kinds that it has already and profiles of inks."""
    there = {kind for kind, _ in jpeg_metadata(clean)}
    kept = [(kind, segment) for kind, segment in jpeg_metadata(source) if kind not in there]
    if any(segment[ICC_HEADER + 16 : ICC_HEADER + 20] == b"CMYK" for kind, segment in kept if kind == JPEG_ICC):
        kept = [(kind, segment) for kind, segment in kept if kind != JPEG_ICC]  # the service answers in RGB
    # Behind the JFIF header, if any, which has to come first.
    at = 4 + int.from_bytes(clean[4:6]) if clean[2:4] == b"\xff\xe0" else 2
    return with_density(clean[:at], source) + b"".join(segment for _, segment in kept) + clean[at:]


def png_chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give kind and content of every whole chunk."""
    at = len(PNG_MARK)
    while at + 12 + (length := int.from_bytes(png[at : at + 4])) <= len(png):
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += 12 + length


def with_png_metadata(clean: bytes, source: bytes) -> bytes:
    """Return the PNG with its source's metadata, but for kinds that it has already."""
    if not source.startswith(PNG_MARK):
        return clean
    there = {kind for kind, _ in png_chunks(clean)}
    kept = [(kind, body) for kind, body in png_chunks(source) if kind in PNG_KEPT - there]
    if there & PNG_COLOUR:  # two descriptions of one colour space would contradict each other
        kept = [(kind, body) for kind, body in kept if kind not in PNG_COLOUR]
    chunks = b""
    for kind, body in kept:
        content = upright(body) if kind == b"eXIf" else body
        if content:
            chunks += len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
    at = len(PNG_MARK) + 12 + int.from_bytes(clean[8:12])  # behind the header, before the palette and the pixels
    return clean[:at] + chunks + clean[at:]


def webp_chunks(webp: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give kind and content of every whole chunk."""
    at = 12
    while at + 8 + (length := int.from_bytes(webp[at + 4 : at + 8], "little")) <= len(webp):
        yield webp[at : at + 4], webp[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def webp_size(webp: bytes) -> tuple[int, int] | None:
    """Return width and height of a WebP that is a picture and nothing else, as the service's are."""
    if webp[12:16] == b"VP8 ":
        return int.from_bytes(webp[26:28], "little") & 0x3FFF, int.from_bytes(webp[28:30], "little") & 0x3FFF
    if webp[12:16] == b"VP8L":
        bits = int.from_bytes(webp[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def with_webp_metadata(clean: bytes, source: bytes) -> bytes:
    """Return the WebP with its source's metadata, unless it has some already."""
    found = {kind: body for kind, body in webp_chunks(source) if kind in WEBP_FLAGS}
    if b"EXIF" in found:
        found[b"EXIF"] = upright(found[b"EXIF"])
    kept = {kind: body for kind, body in found.items() if body}
    size = webp_size(clean)
    if not kept or size is None:
        return clean
    width, height = size
    flags = sum(WEBP_FLAGS[kind] for kind in kept)
    header = flags.to_bytes(4, "little") + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    # The order is fixed: header, profile, picture, Exif, XMP.
    profile = {b"ICCP": kept.pop(b"ICCP")} if b"ICCP" in kept else {}
    chunks = {b"VP8X": header, **profile, **dict(webp_chunks(clean)), **dict(sorted(kept.items()))}
    body = b"WEBP"
    for kind, content in chunks.items():
        body += kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


WITH_METADATA: dict[str, Callable[[bytes, bytes], bytes]] = {
    JPEG: with_jpeg_metadata,
    PNG: with_png_metadata,
    WEBP: with_webp_metadata,
    BMP: lambda clean, _: clean,
}


# Comparison with clean images -------------------------------------------------------------------------------


def pixels_of(path: Path) -> Any:  # noqa: ANN401 (an array: numpy is optional)
    """Return an image as floats [h, w, 3] on the 0..255 scale.

    As in the service the high byte counts of 16 bits, and transparent pixels are laid over black.
    """
    pillow, ops, numpy = (require(name, "PSNR") for name in ("PIL.Image", "PIL.ImageOps", "numpy"))
    with pillow.open(path) as image:
        turned = ops.exif_transpose(image)
    if turned.mode.startswith("I"):
        samples = numpy.array(turned)
        samples[samples == turned.info.get("transparency", -1)] = 0
        turned = pillow.fromarray((samples >> 8).astype(numpy.uint8))
    if turned.has_transparency_data:
        layer = turned.convert("RGBA")
        turned = pillow.new("RGB", layer.size)  # black
        turned.paste(layer, mask=layer.getchannel("A"))
    return numpy.asarray(turned.convert("RGB"), dtype=float)


def psnr_db(pixels: Any, truth: Any) -> float:  # noqa: ANN401 (see pixels_of)
    """Return the PSNR over all pixels, in dB; infinite where they are equal."""
    error = float(((pixels - truth) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


@dataclass
class Comparison:
    """The PSNR of noisy and of denoised images against clean ones of the same paths."""

    out: Path
    reference: Path
    pairs: list[tuple[float, float]]

    def measure(self, image: Image, row: DenoiseRow) -> DenoiseRow:
        """Return the row with its PSNR, printed too, or with the reason why there is none."""
        paths = image.path, self.out / image.relative, self.reference / image.relative
        if not paths[1].exists():  # it has failed, and said so
            return row
        if not paths[2].exists():
            return self._without(row, "no reference")
        try:
            noisy, denoised, truth = map(pixels_of, paths)
        except (OSError, SyntaxError, ValueError) as error:  # as Pillow has it for damaged files
            return self._without(row, f"cannot be read: {error}")
        if truth.shape != denoised.shape or truth.shape != noisy.shape:
            size, expected = (f"{width} x {height}" for height, width, _ in (truth.shape, denoised.shape))
            return self._without(row, f"the reference is {size} pixels, not {expected}")
        before, after = psnr_db(noisy, truth), psnr_db(denoised, truth)
        print(f"{image.key}: {before:.2f} -> {after:.2f} dB, {after - before:+.2f} dB")
        if not math.isfinite(before - after):
            return replace(row, reference="compared")
        self.pairs.append((before, after))
        return replace(row, psnr_noisy=before, psnr_denoised=after, gain=after - before, reference="compared")

    def _without(self, row: DenoiseRow, reason: str) -> DenoiseRow:
        print(f"not compared: {row.path}: {reason}", file=sys.stderr)
        return replace(row, reference=reason)

    def summary(self, count: int) -> str:
        """Return the sentence on the means, over the images that have a reference and differ from it."""
        if not self.pairs:
            return "no PSNR gain (no image of the same size with a reference)"
        before, after = (sum(side) / len(side) for side in zip(*self.pairs, strict=True))
        return (
            f"mean PSNR {before:.2f} -> {after:.2f} dB, mean PSNR gain {after - before:+.2f} dB "
            f"over {len(self.pairs)} of {count} images"
        )


# denoise ----------------------------------------------------------------------------------------------------


class DenoiseJob:
    """Denoise one image into the output folder, then journal it."""

    def __init__(self, options: DenoiseOptions, journal: Journal[DenoiseRow]) -> None:
        self.url = endpoint("/v1/denoise", model=options.model, sigma=options.sigma, strength=options.strength)
        self.out = options.out
        self.journal = journal
        self.noise_levels: list[float] = []
        self.failures: list[str] = []

    async def __call__(self, service: Service, image: Image) -> list[str]:
        """Return the labels to count for this image."""
        try:
            body = await image.read()
            row = self._save(image, body, await service.post(self.url, image.media_type, body))
        except (ImageError, FileNotFoundError) as error:  # a recorder may delete while we read
            row = DenoiseRow(image.key, error=str(error))
            self.failures.append(f"{image.key}: {error}")
        self.journal.append(row)
        return ["failed" if row.error else "denoised"]

    def _save(self, image: Image, body: bytes, reply: httpx.Response) -> DenoiseRow:
        media_type = reply.headers.get("Content-Type", "").partition(";")[0]
        if media_type != image.media_type:
            raise ImageError(f"the reply is {media_type or 'untyped'}, not {image.media_type}")
        row = DenoiseRow(image.key, model=reply.headers.get("X-Model"))
        clean = WITH_METADATA[media_type](reply.content, body)
        before = image.path.stat()
        self.journal.admit(row)  # first: no image is ever there of which no journal knows the parameters
        with replacing(self.out / image.relative) as temporary:
            temporary.write_bytes(clean)
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        with contextlib.suppress(KeyError, ValueError):  # a model may find the noise without telling its level
            row = replace(row, noise_level=float(reply.headers["X-Noise-Level"]))
            self.noise_levels.append(float(reply.headers["X-Noise-Level"]))
        return row


def check_reference(reference: Path, images: list[Image], root: Path) -> None:
    """Raise UsageError where nothing could be compared: now, not after hours of work."""
    require("numpy", "PSNR")
    require("PIL.Image", "PSNR")
    if not any((reference / image.relative).exists() for image in images):
        raise UsageError(f"--reference {reference} has none of the paths in {root}")


def denoise_journal(options: DenoiseOptions, root: Path, outputs: Iterable[Path]) -> Journal[DenoiseRow]:
    """Return the journal of a folder of denoised images. It lies within, to go where they go."""
    parameters = DenoiseParameters(options.url, options.model, str(root), options.sigma, options.strength)
    journal = Journal(options.out / ".denoise.journal", parameters, DenoiseRow)
    return open_journal(journal, outputs, restart=options.restart)


def report_rows(
    images: list[Image], journal: Journal[DenoiseRow], comparison: Comparison | None
) -> Iterator[DenoiseRow]:
    """Give what is known of each image, in the order of their keys."""
    known = {row.path: row for row in journal.rows()}
    for image in images:
        row = known.get(image.key) or DenoiseRow(image.key)
        yield comparison.measure(image, row) if comparison else row


def denoise(options: DenoiseOptions) -> int:
    """Denoise every image that has no output yet."""
    root, images = find_images(options, own=options.out)
    if options.report:
        check_output("--report", options.report)
    if options.reference:
        check_reference(options.reference, images, root)
    outputs = {image: options.out / image.relative for image in images}
    journal = denoise_journal(options, root, outputs.values())
    pending = [image for image, out in outputs.items() if not (journal.is_done(image.key) and out.exists())]
    job = DenoiseJob(options, journal)
    already = len(images) - len(pending)
    counts: Counter[str] = Counter()
    with contextlib.closing(journal):
        if pending:
            counts = asyncio.run(process(options, pending, already, job))
    for failure in sorted(job.failures):
        print(f"failed: {failure}", file=sys.stderr)
    parts = [f"{counts['denoised']} denoised, {counts['failed']} failed, {already} done before"]
    if job.noise_levels:
        mean = sum(job.noise_levels) / len(job.noise_levels)
        parts.append(f"mean noise level {mean:.2f} of 255")
    parts += compare_and_report(options, images, journal)
    print(f"{'; '.join(parts)}: {options.out}{f', {options.report}' if options.report else ''}")
    return 1 if counts["failed"] else 0


def compare_and_report(options: DenoiseOptions, images: list[Image], journal: Journal[DenoiseRow]) -> Iterator[str]:
    """Compare with the references and write the report, where asked for; give the sentence on the gain."""
    comparison = Comparison(options.out, options.reference, []) if options.reference else None
    rows = report_rows(images, journal, comparison)
    if options.report:
        write_table(rows, options.report, DenoiseRow)
    for _ in rows:  # without a report the rows are still to be measured
        pass
    if comparison:
        yield comparison.summary(len(images))


# Command line -----------------------------------------------------------------------------------------------

GUIDE = """\
commands:
  score (may be left out)   scores of all images into one JSONL, CSV or Parquet file
  denoise                   the denoised images into another folder
  `score --help` and `denoise --help` list the options.

examples:
  Score a folder of frames with the default model:
    %(prog)s frames --out scores.jsonl
  Score with one model and threshold, and look at the 20 highest scores in a browser:
    %(prog)s frames --model ped2 --threshold 0.02 --out scores.csv --heatmaps maps --top 20
  Only one day (quote the pattern), or a list of paths:
    %(prog)s 'frames/**/2025-06-01*.jpg' --out day.parquet
    find frames -newer yesterday -name '*.jpg' | %(prog)s - --out new.jsonl
  Denoise, and measure the gain against clean frames of the same names:
    %(prog)s denoise noisy --out clean --strength 0.8 --reference truth --report gain.csv

paths:
  Folders are searched recursively for jpg, jpeg, png, webp and bmp; hidden files are left out.
  Images are known by their path relative to the root, so cam1/000.jpg and cam2/000.jpg are two.
  The root is the FOLDER, the part of the GLOB before its first wildcard, the folder of the FILE,
  for `-` the current folder, for several of them what they share. --root sets another one.
  A folder that is called score or denoise is written ./score or ./denoise.

exit codes:
  0 all done   1 some images failed   2 usage   3 service not reachable   130 stopped by Ctrl-C
"""

SCORE_GUIDE = """\
Score every image; --out ends in .jsonl, .csv or .parquet and has one row an image, sorted by path.

Each result goes at once into a journal beside the output (.scores.jsonl.journal for scores.jsonl).
After an interruption the same command goes on from there, and the output is the same as without one.
The journal stays: a later run with the same parameters adds new images and tries the failed ones again.
Other parameters, or another model on the server, are refused. An image that changed under the same path
is not noticed: --restart scores everything again.
"""

DENOISE_GUIDE = """\
Denoise every image into the folder --out: same path, format and time of change. Exif data, XMP, colour profiles,
comments and resolution of JPEG, PNG and WebP files are kept. Grey stays grey, and a lossless WebP lossless; of 16
bits a channel the service keeps 8. Transparency is not kept: it is laid over black, and palettes become RGB.

A journal in the folder (.denoise.journal) remembers what is done, so the same command goes on after an interruption.
Other parameters, or another model on the server, are refused: --restart denoises everything again.

--reference compares noisy and denoised images with clean ones, in PSNR over 8-bit RGB: a line an image, then the
mean gain. --report writes a row an image: model, noise level, PSNR, or why there is none.
"""


def at_least(minimum: int, text: str) -> int:
    """Return an integer that is not below the minimum."""
    if int(text) < minimum:
        raise argparse.ArgumentTypeError(f"{text} is below {minimum}")
    return int(text)


def service_url(text: str) -> str:
    """Return an http or https URL without a slash at the end."""
    with contextlib.suppress(httpx.InvalidURL):
        url = httpx.URL(text)
        if url.scheme in {"http", "https"} and url.host:
            return text.rstrip("/")
    raise argparse.ArgumentTypeError(f"{text} is not like http://127.0.0.1:8000")


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of both commands."""
    add = parser.add_argument
    count, number = partial(at_least, 1), partial(at_least, 0)
    add("sources", nargs="+", metavar="FOLDER|GLOB|FILE|-", help="images; `-` reads paths from standard input")
    add("--out", type=Path, required=True, help="where the results go")
    add("--url", type=service_url, default="http://127.0.0.1:8000", help="[%(default)s]")
    add("--model", metavar="NAME", help="[the service's default for the task]")
    add("--token", default=os.environ.get("CLEARWATCH_TOKEN"), help="[$CLEARWATCH_TOKEN]")
    add("--root", type=Path, metavar="FOLDER", help="paths are relative to it [see the help without a command]")
    add("--concurrency", type=count, default=8, metavar="N", help="requests at a time, less on overload [%(default)s]")
    add("--retries", type=number, default=5, metavar="N", help="after overload or lost connections [%(default)s]")
    add("--timeout", type=float, default=60.0, metavar="S", help="seconds a try [%(default)s]")
    add("--restart", action="store_true", help="begin again, whatever was done before")


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line of both commands."""
    about = "Score or denoise many images through a Clearwatch service."
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=about, epilog=GUIDE, usage="%(prog)s [COMMAND] ...", **style)
    commands = parser.add_subparsers(dest="command", prog=parser.prog, help=argparse.SUPPRESS)
    style["usage"] = "%(prog)s FOLDER|GLOB|FILE|- ... --out OUT [options]"
    scores = commands.add_parser("score", description=SCORE_GUIDE, **style)
    add_common(scores)
    add = scores.add_argument
    add("--camera", metavar="NAME", help="decide with the calibration of this camera")
    add("--threshold", type=float, metavar="T", help="[the model's, or the camera's]")
    add("--heatmaps", type=Path, metavar="FOLDER", help="save heat maps under the same paths + .png")
    add("--heatmap-style", choices=("overlay", "png"), default="overlay", help="[%(default)s]")
    add("--top", type=partial(at_least, 1), metavar="N", help="contact sheet (HTML) of the N highest scores")
    add("--contact-sheet", type=Path, metavar="FILE", help="where to write it [OUT.top.html]; N is 20 if not given")
    cleaner = commands.add_parser("denoise", description=DENOISE_GUIDE, **style)
    add_common(cleaner)
    add = cleaner.add_argument
    add("--sigma", type=float, metavar="S", help="noise level on the 0..255 scale [estimated]")
    add("--strength", type=float, metavar="X", help="0..2 [1]")
    add("--reference", type=Path, metavar="FOLDER", help="clean images under the same paths: print the PSNR gain")
    add("--report", type=Path, metavar="FILE", help="a row an image, as .jsonl, .csv or .parquet")
    return parser


COMMANDS: dict[str, Callable[[dict[str, Any]], int]] = {
    "score": lambda values: score(ScoreOptions(**values)),
    "denoise": lambda values: denoise(DenoiseOptions(**values)),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in {*COMMANDS, "-h", "--help"}:
        arguments.insert(0, "score")
    values = vars(build_parser().parse_args(arguments))
    try:
        return COMMANDS[values.pop("command")](values)
    except BatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}. {RESUME_HINT}", file=sys.stderr)
        return UsageError.exit_code
    except KeyboardInterrupt:
        print(f"\nStopped. {RESUME_HINT}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
