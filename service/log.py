"""One JSON object a line on stderr, each with the id of the request it belongs to. Never image data."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import TextIO

from pythonjsonlogger.orjson import OrjsonFormatter

PAUSE_S = 0.05
# What libraries say below these levels is of no use, or is the caller's: bytes of a form, names of chunks in an image.
LEAST = {"uvicorn": "WARNING", "uvicorn.error": "WARNING", "python_multipart": "ERROR", "PIL": "WARNING"}

request_id: ContextVar[str] = ContextVar("request_id", default="")


class _Queue(QueueHandler):
    """Notes the request that a record belongs to, and leaves formatting and writing to the listener's thread."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if (current := request_id.get()) and not hasattr(record, "request_id"):
            record.request_id = current
        return record


class _Writer(logging.StreamHandler[TextIO]):
    """Writes lines together that come together."""

    def __init__(self, stream: TextIO, records: SimpleQueue[logging.LogRecord]) -> None:
        super().__init__(stream)
        self._records = records

    def flush(self) -> None:
        if self._records.empty():
            super().flush()


class _Listener(QueueListener):
    """Sleeps a moment over the first record after a pause, so that it does not take the GIL after every request."""

    def __init__(self, records: SimpleQueue[logging.LogRecord], handler: logging.Handler) -> None:
        super().__init__(records, handler)
        self._records = records

    def dequeue(self, block: bool) -> logging.LogRecord:  # noqa: FBT001 - as its base has it
        was_empty = self._records.empty()
        record = super().dequeue(block)
        if was_empty:
            time.sleep(PAUSE_S)
        return record


@contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Send everything, uvicorn's own lines included, to stderr as JSON, until all is written at the end.

    A thread writes: a write gives the GIL away, and the event loop would wait for it after every request.
    """
    # What no line of ours says need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - the documented way to have no caller looked for
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
    handler = _Writer(stream, records)
    handler.setFormatter(
        OrjsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
        )
    )
    listener = _Listener(records, handler)
    logging.basicConfig(level=level.upper(), handlers=[_Queue(records)], force=True)
    for name, least in LEAST.items():
        logging.getLogger(name).setLevel(least)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        with suppress(OSError):  # what cannot be written is not worth an end in error
            stream.close()
