"""How far a long request is, in the log: when it begins, now and then, and when it is done."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

STEP = 0.1  # of the work between two lines,
PAUSE_S = 5.0  # and seconds: whichever comes later


class Progress:
    """Counts the tiles of a frame that are done."""

    def __init__(self, model: str, tiles: int, clock: Callable[[], float]) -> None:
        self._model = model
        self._tiles = tiles
        self._clock = clock
        self._done = 0
        self._told_done = 0
        self._told_at = clock()

    def advance(self) -> None:
        """Count one more, and say so where a tenth and some seconds have gone by since the last line."""
        self._done += 1
        if self._done == self._tiles or self._done - self._told_done < STEP * self._tiles:
            return
        if self._clock() - self._told_at >= PAUSE_S:
            self._told_done, self._told_at = self._done, self._clock()
            fields = {"model": self._model, "done": self._done, "tiles": self._tiles}
            logger.info("denoising tiles", extra=fields)


@contextmanager
def tiles_logged(
    model: str, pixels: int, tiles: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Log the beginning and, where nothing fails, the end with its seconds. `pixels` of the whole frame."""
    fields = {"model": model, "megapixels": round(pixels / 1e6, 2), "tiles": tiles}
    started = clock()
    logger.info("denoising in tiles", extra=fields)
    yield Progress(model, tiles, clock)
    logger.info("denoised in tiles", extra=fields | {"seconds": round(clock() - started, 2)})
