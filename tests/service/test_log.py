"""The log: one JSON object a line, with the id of its request, in order, soon, and none lost at the end."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from python_multipart.exceptions import FormParserError

from runtime.images import decode
from service import log
from service.log import logging_to_stderr
from service.multipart import FormReader
from tests.waiting import until

logger = logging.getLogger("tests.log")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give pytest its own handlers back, and logging what it had."""
    for name in ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile"):
        monkeypatch.setattr(logging, name, getattr(logging, name))
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in log.LEAST}
    yield
    root.handlers, root.level = before, level
    for name, least in levels.items():
        logging.getLogger(name).setLevel(least)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_lines_are_objects_in_order_and_none_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("info"):
        for index in range(500):
            logger.info("counted", extra={"index": index})
    found = lines(capfd.readouterr().err)
    assert [line["index"] for line in found] == list(range(500))
    assert found[0].keys() >= {"timestamp", "level", "logger", "message"}
    assert (found[0]["level"], found[0]["logger"], found[0]["message"]) == ("INFO", "tests.log", "counted")


def test_a_line_is_written_soon(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("info"):
        for index in range(3):
            logger.info("counted", extra={"index": index})
            seen = ""

            def is_there() -> bool:
                nonlocal seen
                seen += capfd.readouterr().err
                return seen.endswith("\n")

            until(is_there)
            assert [line["index"] for line in lines(seen)] == [index]


def test_a_line_bears_the_id_of_its_request(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("info"):
        logger.info("before")
        token = log.request_id.set("abc")
        logger.info("during")
        log.request_id.reset(token)
    before, during = lines(capfd.readouterr().err)
    assert "request_id" not in before
    assert during["request_id"] == "abc"


def test_a_failure_comes_with_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("warning"):
        logger.info("not of interest")
        try:
            int("an odd one")
        except ValueError:
            logger.exception("failed")
    (line,) = lines(capfd.readouterr().err)
    assert "an odd one" in line["exc_info"]
    assert "test_log.py" in line["exc_info"]


def test_libraries_do_not_repeat_what_was_sent(capfd: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("debug"):
        with suppress(FormParserError):
            FormReader(b"x", 1, 100).write(b"--x\r\nhunter\x01")
        notes = PngInfo()
        notes.add(b"hunT", b"hunter2")
        buffer = io.BytesIO()
        Image.new("L", (2, 2)).save(buffer, "PNG", pnginfo=notes)
        decode(buffer.getvalue())
        logger.info("after")
    assert [line["message"] for line in lines(capfd.readouterr().err)] == ["after"]
