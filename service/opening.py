"""Opens model folders under a time limit: a graph may hang on its golden input, before any request has seen it."""

from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from threading import Thread
from typing import Any

from runtime.contest import Trial, open_fastest
from runtime.devices import Device
from runtime.errors import ModelFolderInvalid, ShuttingDown
from runtime.model import Model

CLOSED = "the service is shutting down and opens no more models"


class Opener:
    """Opens folders on one device, each in a thread of its own, for a thread that hangs cannot be ended."""

    def __init__(self, device: Device, limit_s: float) -> None:
        self._device = device
        self._limit_s = limit_s
        self._given_up: list[Thread] = []
        self._closed: Future[Any] = Future()

    def open(self, folder: Path) -> tuple[Model, tuple[Trial, ...]]:
        """Do as runtime.contest.open_fastest.

        Raises ModelFolderInvalid as well where that does not end in time, ShuttingDown once the opener is closed.
        """
        if self._closed.done():
            raise ShuttingDown(CLOSED)
        opened: Future[tuple[Model, tuple[Trial, ...]]] = Future()
        thread = Thread(target=self._open_into, args=(folder, opened), name=f"opening-{folder.name}", daemon=True)
        thread.start()
        wait([opened, self._closed], self._limit_s, FIRST_COMPLETED)
        if opened.done():
            return opened.result()
        self._given_up.append(thread)
        if self._closed.done():
            raise ShuttingDown(CLOSED)
        raise ModelFolderInvalid(
            f"{folder}: it was not open after {self._limit_s:g} s and is given up; a larger "
            "CLEARWATCH_OPEN_LIMIT_S gives it more time"
        )

    def close(self) -> None:
        """Open no more, and give up at once what is being opened. To be called once."""
        self._closed.set_result(None)

    def hangs(self) -> bool:
        """Tell whether threads that were given up go on computing all the same."""
        return any(thread.is_alive() for thread in self._given_up)

    def _open_into(self, folder: Path, opened: "Future[tuple[Model, tuple[Trial, ...]]]") -> None:
        try:
            opened.set_result(open_fastest(folder, self._device))
        except Exception as error:  # noqa: BLE001 - it is raised where the result is awaited
            opened.set_exception(error)
