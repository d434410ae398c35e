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
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

try:
    import httpx
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed: pip install httpx tqdm", file=sys.stderr)
    raise SystemExit(2) from None

JPEG = "image/jpeg"
MEDIA_TYPES = {".jpg": JPEG, ".jpeg": JPEG, ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp"}
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


# Scores and their journal -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the output: the service's reply for one image, or why there is none."""

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
    def from_reply(cls, path: str, reply: dict[str, Any]) -> Row:
        """Take the columns out of a reply of `/v1/score`; timings are left out on purpose."""
        model = reply["model"]
        named = {"model": model["name"], "version": model["version"], "sha256": model["sha256"]}
        same = {field.name for field in fields(cls)} - {"path", "error", *named}
        return cls(path=path, **named, **{name: reply.get(name) for name in same})


COLUMNS = [field.name for field in fields(Row)]


@dataclass(frozen=True)
class Parameters:
    """What all rows of one output must share."""

    url: str
    model: str | None
    threshold: float | None
    heatmap: str
    root: str


class Journal:
    """Append-only file beside the output: a line of parameters, then one line an image."""

    def __init__(self, path: Path, parameters: Parameters) -> None:
        self.path = path
        self.parameters = parameters
        self.failed: set[str] = set()
        self.sha256: str | None = None  # of the model, as the replies give it
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
                    self._remember(Row(**json.loads(line)), offset)
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

    def _remember(self, row: Row, offset: int) -> None:
        self._offsets[row.path] = offset
        (self.failed.add if row.error else self.failed.discard)(row.path)
        self.sha256 = self.sha256 or row.sha256

    def is_done(self, key: str) -> bool:
        """Tell whether the image has a score; failed ones are tried again."""
        return key in self._offsets and key not in self.failed

    def append(self, row: Row) -> None:
        """Write one result so that a killed process does not lose it."""
        if row.sha256 and self.sha256 not in {None, row.sha256}:
            raise UsageError(
                f"the model on the server has changed (sha256 {self.sha256} before, {row.sha256} "
                "now) and its scores do not compare: give another --out, or --restart"
            )
        self._file = self._file or self._open()
        offset = self._file.tell()
        self._file.write(json.dumps(asdict(row)).encode() + b"\n")
        self._file.flush()
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
        return file

    def close(self) -> None:
        """Close the file; the journal itself stays."""
        if self._file:
            self._file.close()

    def rows(self) -> Iterator[Row]:
        """Give all rows in the order of their paths, read one at a time."""
        if not self._offsets:
            return
        with self.path.open("rb") as file:
            for key in sorted(self._offsets):
                file.seek(self._offsets[key])
                yield Row(**json.loads(file.readline()))


# Outputs ----------------------------------------------------------------------------------------------------


def flat(row: Row) -> dict[str, Any]:
    """Return the row for a table: regions as JSON text."""
    regions = None if row.regions is None else json.dumps(row.regions)
    return {**asdict(row), "regions": regions}


def write_jsonl(rows: Iterable[Row], path: Path) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write a header line, then a line a row; what is missing is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            anomalous = None if row.anomalous is None else json.dumps(row.anomalous)
            writer.writerow({**flat(row), "anomalous": anomalous})


def write_parquet(rows: Iterable[Row], path: Path) -> None:
    """Write row groups of 10,000, with types that hold when a column is all null."""
    pyarrow, parquet = (require(name, "Parquet") for name in ("pyarrow", "pyarrow.parquet"))
    numbers = dict.fromkeys(("score", "p_value", "threshold", "false_alarm_rate"), pyarrow.float64())
    types = {**dict.fromkeys(COLUMNS, pyarrow.string()), **numbers, "anomalous": pyarrow.bool_()}
    schema = pyarrow.schema(list(types.items()))
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := [flat(row) for row in itertools.islice(remaining, 10_000)]:
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


WRITERS: dict[str, Callable[[Iterable[Row], Path], None]] = {
    ".jsonl": write_jsonl,
    ".csv": write_csv,
    ".parquet": write_parquet,
}

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


def card(row: Row, picture: Path) -> str:
    """Return one figure of the contact sheet."""
    p_value = "" if row.p_value is None else f"<span>p = {row.p_value:.4g}</span>"
    mark = ' class="anomalous"' if row.anomalous else ""
    return (
        f'<figure{mark}>{embedded(picture)}<figcaption><div class="numbers">'
        f'<span class="score">{row.score:.6g}</span>{p_value}'
        f'<span class="state">{html.escape(str(row.state))}</span></div>'
        f'<div class="path">{html.escape(row.path)}</div></figcaption></figure>\n'
    )


def write_contact_sheet(rows: Iterable[Row], options: ScoreOptions, root: Path) -> Path | None:
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
    journal: Journal
    heatmaps: Path | None

    async def __call__(self, service: Service, image: Image) -> list[str]:
        """Return the labels to count for this image."""
        try:
            reply = await service.post(self.url, image.media_type, await image.read())
            row = self._take(image, reply)
        except ImageError as error:
            row = Row(path=image.key, error=str(error))
        self.journal.append(row)
        return ["failed"] if row.error else ["scored", *(["anomalous"] if row.anomalous else [])]

    def _take(self, image: Image, response: httpx.Response) -> Row:
        try:
            reply = response.json()
            row = Row.from_reply(image.key, reply)
            picture = base64.b64decode((reply.get("heatmap") or "").rpartition(",")[2])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{response.url} does not answer as a Clearwatch service") from error
        if self.heatmaps and picture:
            with replacing(self.heatmaps / f"{image.key}.png") as temporary:
                temporary.write_bytes(picture)
        return row


def open_journal(options: ScoreOptions, root: Path, heatmap: str) -> Journal:
    """Return the journal of this output, with what an earlier run has done."""
    parameters = Parameters(options.url, options.model, options.threshold, heatmap, str(root))
    journal = Journal(options.out.with_name(f".{options.out.name}.journal"), parameters)
    if options.restart:
        return journal
    if journal.path.exists():
        journal.load()
    elif options.out.exists():
        raise UsageError(
            f"{options.out} exists but not its journal {journal.path}: give another --out, or --restart to replace it"
        )
    return journal


def score(options: ScoreOptions) -> int:
    """Score every image that has no score yet and write the whole output."""
    writer = WRITERS.get(options.out.suffix.lower())
    if writer is None:
        raise UsageError(f"--out {options.out}: the suffix must be one of {', '.join(WRITERS)}")
    if writer is write_parquet:
        require("pyarrow.parquet", "Parquet")  # now, not after hours of work
    root, images = find_images(options, own=options.heatmaps)
    heatmap = options.heatmap_style if options.heatmaps else "none"
    journal = open_journal(options, root, heatmap)
    pending = [image for image in images if not journal.is_done(image.key)]
    url = endpoint("/v1/score", model=options.model, threshold=options.threshold, heatmap=heatmap)
    job = ScoreJob(url, journal, options.heatmaps)
    already = len(images) - len(pending)
    counts: Counter[str] = Counter()
    with contextlib.closing(journal):
        if pending:
            counts = asyncio.run(process(options, pending, already, job))
    with replacing(options.out) as temporary:
        writer(journal.rows(), temporary)
    sheet = write_contact_sheet(journal.rows(), options, root)
    print(
        f"{counts['scored']} scored, {counts['anomalous']} anomalous, {counts['failed']} failed, "
        f"{already} done before: {options.out}{f', {sheet}' if sheet else ''}"
    )
    return 1 if counts["failed"] else 0


# denoise ----------------------------------------------------------------------------------------------------


def exif_segment(jpeg: bytes) -> bytes:
    """Return the Exif segment of a JPEG file; empty if there is none."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1 : at + 2] != b"\xda":  # up to the start of the scan
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at + 1 : at + 2] == b"\xe1" and jpeg[at + 4 : at + 10] == b"Exif\0\0":
            return jpeg[at:end]
        at = end
    return b""


def upright(segment: bytes) -> bytes:
    """Return the Exif segment with Orientation 1, as the service has turned the pixels already."""
    exif = bytearray(segment)
    order = "<" if exif[10:12] == b"II" else ">"
    tiff = 10  # offsets count from here; nothing moves, so those in maker notes stay right
    directory = tiff + struct.unpack_from(f"{order}I", exif, tiff + 4)[0]
    for entry in range(struct.unpack_from(f"{order}H", exif, directory)[0]):
        at = directory + 2 + 12 * entry
        if struct.unpack_from(f"{order}H", exif, at)[0] == 0x0112:
            struct.pack_into(f"{order}H", exif, at + 8, 1)
    return bytes(exif)


def with_exif(jpeg: bytes, source: bytes) -> bytes:
    """Return the JPEG with the Exif data of its source, unless it has some or that is unreadable."""
    segment = exif_segment(source)
    if not segment or exif_segment(jpeg):
        return jpeg
    try:
        segment = upright(segment)
    except struct.error:
        return jpeg
    # Behind the JFIF header, if any, which has to come first.
    at = 4 + int.from_bytes(jpeg[4:6]) if jpeg[2:4] == b"\xff\xe0" else 2
    return jpeg[:at] + segment + jpeg[at:]


class DenoiseJob:
    """Denoise one image into the output folder."""

    def __init__(self, options: DenoiseOptions) -> None:
        self.url = endpoint("/v1/denoise", model=options.model, sigma=options.sigma, strength=options.strength)
        self.out = options.out
        self.noise_levels: list[float] = []
        self.failures: list[str] = []

    async def __call__(self, service: Service, image: Image) -> list[str]:
        """Return the labels to count for this image."""
        try:
            body = await image.read()
            self._save(image, body, await service.post(self.url, image.media_type, body))
        except (ImageError, FileNotFoundError) as error:  # a recorder may delete while we read
            self.failures.append(f"{image.key}: {error}")
            return ["failed"]
        return ["denoised"]

    def _save(self, image: Image, body: bytes, reply: httpx.Response) -> None:
        media_type = reply.headers.get("Content-Type", "").partition(";")[0]
        if media_type != image.media_type:
            raise ImageError(f"the reply is {media_type or 'untyped'}, not {image.media_type}")
        with contextlib.suppress(ValueError):
            self.noise_levels.append(float(reply.headers.get("X-Noise-Level", "")))
        clean = with_exif(reply.content, body) if media_type == JPEG else reply.content
        before = image.path.stat()
        with replacing(self.out / image.relative) as temporary:
            temporary.write_bytes(clean)
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))


def psnr_db(path: Path, reference: Path) -> float:
    """Return the PSNR over all pixels as 8-bit RGB, in dB; NaN when the sizes differ."""
    pillow, ops, numpy = (require(name, "PSNR") for name in ("PIL.Image", "PIL.ImageOps", "numpy"))
    frames = []
    for each in (path, reference):
        with pillow.open(each) as image:
            frames.append(numpy.asarray(ops.exif_transpose(image).convert("RGB"), dtype=float))
    if frames[0].shape != frames[1].shape:
        return math.nan
    error = float(((frames[0] - frames[1]) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def psnr_gain(images: list[Image], options: DenoiseOptions, reference: Path) -> str:
    """Return the sentence on the mean PSNR gain over the images that have a reference."""
    gains = []
    for image in images:
        clean, truth = options.out / image.relative, reference / image.relative
        with contextlib.suppress(OSError):  # missing or unreadable
            gains.append(psnr_db(clean, truth) - psnr_db(image.path, truth))
    finite = [gain for gain in gains if math.isfinite(gain)]
    if not finite:
        return "no PSNR gain (no image of the same size with a reference)"
    mean = sum(finite) / len(finite)
    return f"mean PSNR gain {mean:+.2f} dB over {len(finite)} of {len(images)} images"


def denoise(options: DenoiseOptions) -> int:
    """Denoise every image that has no output yet."""
    root, images = find_images(options, own=options.out)
    if options.reference:
        require("numpy", "PSNR")
        require("PIL.Image", "PSNR")
        if not any((options.reference / image.relative).exists() for image in images):
            raise UsageError(f"--reference {options.reference} has none of the paths in {root}")
    pending = [image for image in images if options.restart or not (options.out / image.relative).exists()]
    job = DenoiseJob(options)
    already = len(images) - len(pending)
    counts: Counter[str] = Counter()
    if pending:
        counts = asyncio.run(process(options, pending, already, job))
    for failure in sorted(job.failures):
        print(f"failed: {failure}", file=sys.stderr)
    parts = [f"{counts['denoised']} denoised, {counts['failed']} failed, {already} done before"]
    if job.noise_levels:
        mean = sum(job.noise_levels) / len(job.noise_levels)
        parts.append(f"mean noise level {mean:.2f} of 255")
    if options.reference:
        parts.append(psnr_gain(images, options, options.reference))
    print(f"{'; '.join(parts)}: {options.out}")
    return 1 if counts["failed"] else 0


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
    %(prog)s denoise noisy --out clean --strength 0.8 --reference truth

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
Denoise every image into the folder --out: same path, format and time of change; Exif data of JPEGs is kept.
What is there already is skipped, so the same command goes on after an interruption.
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
    add("--threshold", type=float, metavar="T", help="[the model's]")
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
