"""The last scores of a camera: what it can be calibrated from without sending its frames again."""

import numpy as np
import numpy.typing as npt

from runtime.conformal import NormalScores

_ROW = np.dtype(
    [
        ("at", np.float64),
        ("score", np.float32),
        ("map_low", np.float32),
        ("map_peak", np.float32),
        ("learnt", np.bool_),  # whether the frame was one of the training
    ]
)
_FIRST_ROWS = 256


class ScoreHistory:
    """At most `maximum` scores, 21 bytes each; the oldest make room. Room is taken as it is needed."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._rows: npt.NDArray[np.void] = np.empty(0, _ROW)
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self._maximum)

    def add(self, at: float, score: float, map_range: tuple[float, float], *, learnt: bool = False) -> None:
        """Keep the score of a frame that came at a time, in seconds since 1970."""
        if self._maximum == 0:
            return
        if self._added == len(self._rows) < self._maximum:
            more = np.empty(min(max(_FIRST_ROWS, 2 * len(self._rows)), self._maximum), _ROW)
            more[: self._added] = self._rows
            self._rows = more
        self._rows[self._added % self._maximum] = (at, score, *map_range, learnt)
        self._added += 1

    def clear(self) -> None:
        """Forget all: they are of other weights."""
        self._rows, self._added = np.empty(0, _ROW), 0

    def between(self, since: float | None, until: float | None) -> NormalScores:
        """Return a copy of the scores of a time, oldest first, as one clip."""
        rows = self._rows_between(since, until)
        scores, lows, peaks = (rows[name].astype(np.float64) for name in ("score", "map_low", "map_peak"))
        return NormalScores(scores, np.zeros(len(rows), np.intp), lows, peaks)

    def learnt_between(self, since: float | None, until: float | None) -> int:
        """Count the frames of a time that the weights are known to have been trained on."""
        return int(self._rows_between(since, until)["learnt"].sum())

    def _rows_between(self, since: float | None, until: float | None) -> npt.NDArray[np.void]:
        oldest = self._added % self._maximum if self._added > self._maximum else 0
        rows = np.roll(self._rows[: len(self)], -oldest)
        chosen = np.ones(len(rows), bool)
        if since is not None:
            chosen &= rows["at"] >= since
        if until is not None:
            chosen &= rows["at"] <= until
        return rows[chosen]
