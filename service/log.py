"""One JSON object a line on stderr, each with the id of the request it belongs to. Never image data."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue

from pythonjsonlogger.json import JsonFormatter

request_id: ContextVar[str] = ContextVar("request_id", default="")


class _Queue(QueueHandler):
    """Notes the request that a record belongs to, and leaves formatting and writing to the listener's thread."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        if (current := request_id.get()) and not hasattr(record, "request_id"):
            record.request_id = current
        return record


@contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Send everything, uvicorn's own lines included, to stderr as JSON, until all is written at the end.

    A thread writes: a write gives the GIL away, and the event loop would wait for it after every request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
            json_ensure_ascii=False,
        )
    )
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    listener = QueueListener(records, handler)
    logging.basicConfig(level=level.upper(), handlers=[_Queue(records)], force=True)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
