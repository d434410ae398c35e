"""Waiting for what other threads and processes do."""

import time
from collections.abc import Callable

PATIENCE_S = 60  # for what takes a second, on a machine with nothing else to do


def until(holds: Callable[[], object]) -> None:
    """Wait until it holds; fail when it has not for a minute."""
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.005)
