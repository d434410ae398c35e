"""The lines of a long request in the log: rare, in order, and with what an operator wants to know."""

import logging

import pytest

from service.progress import PAUSE_S, tiles_logged


@pytest.fixture(autouse=True)
def _informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


class Clock:
    """Stands still but for what the test says."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int | None]]:
    return [(record.message, getattr(record, "done", None)) for record in caplog.records]


@pytest.mark.parametrize(
    ("tiles", "tile_s", "told"),
    [
        (40, PAUSE_S, [*range(4, 40, 4)]),  # slow tiles: every tenth of the work
        (40, PAUSE_S / 10, [10, 20, 30]),  # quick ones: every few seconds
        (40, 0, []),
        (2, 10 * PAUSE_S, [1]),
    ],
)
def test_whichever_is_rarer(tiles: int, tile_s: float, told: list[int], caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with tiles_logged("night", 8_294_400, tiles, clock) as progress:
        for _ in range(tiles):
            clock.now += tile_s
            progress.advance()
    between = [("denoising tiles", done) for done in told]
    assert lines(caplog) == [("denoising in tiles", None), *between, ("denoised in tiles", None)]
    first, last = vars(caplog.records[0]), vars(caplog.records[-1])
    assert (first["model"], first["megapixels"], first["tiles"]) == ("night", 8.29, tiles)
    assert (last["model"], last["seconds"]) == ("night", pytest.approx(tiles * tile_s))


def test_what_fails_is_not_said_to_be_done(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MemoryError), tiles_logged("night", 10**6, 4):
        raise MemoryError
    assert lines(caplog) == [("denoising in tiles", None)]
