"""Thresholds from normal scores alone: conformal, for a stated false-alarm rate, and how far that can be trusted."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from runtime.errors import InvalidInput, TooFewFrames
from runtime.manifest import Calibration

BOOTSTRAPS = 500
FEWEST_BOOTSTRAPS = 100
BOOTSTRAPPED_FRAMES = 10_000_000  # in all: of a day of frames fewer sets are drawn
LEAVE_OUT_TURNS = 20
INTERVAL = (0.025, 0.975)
FEWEST_EVENTS = 10  # that tell a rate within a factor of two
KEPT_HIGHEST = 1000  # scores that are kept one by one: p-values below 1000 / n are exact
KEPT_OTHERS = 1000  # of the rest, closer together towards the highest

Scores = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


LEAST_RATE = 1e-12  # no frames could ever promise less


@dataclass(frozen=True)
class FalseAlarms:
    """The false alarms that a user puts up with: a share of the normal frames, in (0, 1)."""

    rate: float
    frames_per_second: float | None = None

    def __post_init__(self) -> None:
        """Raise InvalidInput for what is no rate."""
        _check_frame_rate(self.frames_per_second)
        if not LEAST_RATE <= self.rate < 1:
            raise InvalidInput(
                f"the share of normal frames that may alarm must be between {LEAST_RATE:g} and 1; it is {self.rate:g}"
            )

    @classmethod
    def stated(
        cls, rate: float | None, per_hour: float | None, frames_per_second: float | None, otherwise: float
    ) -> "FalseAlarms":
        """Take what the user says, a rate a frame or a number an hour; raise InvalidInput for both or half of it."""
        if per_hour is None:
            return cls(otherwise if rate is None else rate, frames_per_second)
        if rate is not None:
            raise InvalidInput("state the false alarms a frame or an hour, not both")
        if frames_per_second is None:
            raise InvalidInput(
                "false alarms an hour depend on how many frames are scored: state the frames a second too"
            )
        _check_frame_rate(frames_per_second)  # before it divides
        return cls(per_hour / (3600 * frames_per_second), frames_per_second)

    @property
    def frames_needed(self) -> int:
        """The fewest exchangeable frames that can promise the rate: 1 / rate - 1."""
        return math.ceil(round(1 / self.rate, 6)) - 1

    def __str__(self) -> str:
        if self.frames_per_second is None:
            return f"a false-alarm rate of {self.rate:.4g} a frame"
        per_hour = 3600 * self.frames_per_second * self.rate
        number, time = (per_hour, "an hour") if per_hour >= 1 else (24 * per_hour, "a day")
        alarms = "1 false alarm" if f"{number:.4g}" == "1" else f"{number:.4g} false alarms"
        return f"{alarms} {time} at {self.frames_per_second:g} frames/s ({self.rate:.4g} a frame)"

    def lasting(self, frames: int) -> str:
        """Say how long it takes a camera to send so many frames."""
        if self.frames_per_second is None:
            return ""
        seconds = frames / self.frames_per_second
        return f", {seconds / 3600:.3g} hours of them" if seconds >= 3600 else f", {seconds / 60:.3g} minutes of them"


def _check_frame_rate(frames_per_second: float | None) -> None:
    if frames_per_second is not None and not 0 < frames_per_second < math.inf:
        raise InvalidInput(f"the frames a second must be a number above 0; they are {frames_per_second:g}")


@dataclass(frozen=True)
class NormalScores:
    """What normal frames scored: the frames of a clip stand together, in the order of time."""

    scores: Scores
    """[n]."""

    clips: Indices
    """[n], a number for each clip."""

    map_lows: Scores | None = None
    """[n], the median pixel of each anomaly map; None where only scores are known."""

    map_peaks: Scores | None = None
    """[n], the highest pixel of each anomaly map."""

    def __len__(self) -> int:
        return len(self.scores)


def calibrate(normal: NormalScores, promise: FalseAlarms, source: str, scale: Calibration | None = None) -> Calibration:
    """Return what normal scores say: threshold, p-values, interval, warnings.

    `scale` lends the scale of the heat maps where only scores are known. Raises TooFewFrames where the frames could
    not promise the rate even if they were independent, InvalidInput for scores that are no numbers.
    """
    if not np.isfinite(normal.scores).all():
        where = int(np.flatnonzero(~np.isfinite(normal.scores))[0])
        raise InvalidInput(
            f"the score of frame {where + 1} is {normal.scores[where]}, which is no number to compare with"
        )
    threshold = conformal_threshold(normal.scores, promise)
    trust = _Trust.of(normal, promise)
    scores, above = _thinned(np.sort(normal.scores))
    map_low, map_threshold = _map_scale(normal, promise, scale)
    return Calibration(
        scores=scores,
        above=above,
        count=len(normal),
        threshold=threshold,
        false_alarm_rate=promise.rate,
        frames_per_second=promise.frames_per_second,
        map_low=map_low,
        map_threshold=map_threshold,
        source=source,
        clips=len(np.unique(normal.clips)),
        effective_count=trust.effective_count,
        rate_interval=trust.interval,
        left_out_rate=trust.left_out_rate,
        warnings=tuple(trust.warnings(len(normal), promise)),
    )


def map_range(anomaly_maps: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the median and the highest pixel of anomaly maps [..., h, w], which set the scale of heat maps."""
    return np.median(anomaly_maps, axis=(-2, -1)), anomaly_maps.max(axis=(-2, -1))


def conformal_threshold(scores: npt.NDArray[np.floating], promise: FalseAlarms) -> float:
    """Return the smallest threshold that a new normal score exceeds with probability <= the rate.

    That is the ceil((1 - rate) (n + 1))-th smallest of n exchangeable scores (Vovk et al. 2005), ties or not. Raises
    TooFewFrames.
    """
    check_enough(len(scores), promise)
    rank = _rank(len(scores), promise.rate)
    return float(np.partition(scores, rank - 1)[rank - 1])


def check_enough(count: int, promise: FalseAlarms, cure: str = "add normal frames") -> None:
    """Raise TooFewFrames where so few normal frames cannot promise the rate, however different they are."""
    if _rank(count, promise.rate) > count:
        needed = promise.frames_needed
        raise TooFewFrames(
            f"n = {count} normal frames cannot support {promise}: at least {needed} are needed"
            f"{promise.lasting(needed)}; {cure}, or accept more false alarms"
        )


def _rank(count: int, rate: float) -> int:
    return math.ceil(round((1 - rate) * (count + 1), 9))  # (1 - 0.7) * 10 is 3.0000000000000004


def _map_scale(normal: NormalScores, promise: FalseAlarms, scale: Calibration | None) -> tuple[float, float]:
    if normal.map_lows is not None and normal.map_peaks is not None:
        return float(np.median(normal.map_lows)), conformal_threshold(normal.map_peaks, promise)
    if scale is None:
        raise InvalidInput(
            "scores alone give no scale for heat maps, and the model has no calibration to take one from: "
            "calibrate with frames"
        )
    return scale.map_low, scale.map_threshold


def _thinned(ordered: Scores) -> tuple[tuple[float, ...], tuple[int, ...] | None]:
    """Keep the highest scores and a choice of the others, with how many frames score higher than each."""
    count = len(ordered)
    if count <= KEPT_HIGHEST + KEPT_OTHERS:
        return tuple(ordered.tolist()), None
    from_top = np.geomspace(KEPT_HIGHEST, count, KEPT_OTHERS).astype(int)
    kept = np.unique(np.concatenate([ordered[count - KEPT_HIGHEST :], ordered[count - from_top]]))
    above = count - np.searchsorted(ordered, kept, side="right")
    return tuple(kept.tolist()), tuple(above.tolist())


@dataclass(frozen=True)
class _Trust:
    """How far the promise of a threshold can be trusted, from the frames that set it."""

    effective_count: float
    interval: tuple[float, float]
    left_out_rate: float | None
    events: "Events"

    @classmethod
    def of(cls, normal: NormalScores, promise: FalseAlarms) -> "_Trust":
        """Draw the frames anew, with their neighbours, and see what thresholds they set; count the events at the top.

        The bootstrap sees how the level of the scores wanders, the events what visits an empty scene now and then: the
        interval is the wider of the two at each end.
        """
        count = len(normal)
        ranks = np.empty(count, np.intp)  # in which no two scores are equal
        order = np.argsort(normal.scores, kind="stable")
        ranks[order] = np.arange(count)
        ordered = normal.scores[order]
        rates = (count - np.searchsorted(ordered, ordered, side="right")) / count  # of the threshold at each rank
        bootstrap = BlockBootstrap.of(ranks, normal.clips)
        found, means = [], []
        rng = np.random.default_rng(0)
        for _ in range(max(FEWEST_BOOTSTRAPS, min(BOOTSTRAPS, BOOTSTRAPPED_FRAMES // count))):
            drawn = ranks[bootstrap.draw(rng)]
            rank = min(_rank(len(drawn), promise.rate), len(drawn))
            found.append(rates[np.partition(drawn, rank - 1)[rank - 1]])
            means.append(drawn.mean())
        events = Events.of(normal.scores >= conformal_threshold(normal.scores, promise), normal.clips)
        low, high = zip(np.quantile(found, INTERVAL), events.interval(promise.rate), strict=True)
        effective = (count**2 - 1) / 12 / max(float(np.var(means)), 1e-12)  # the variance of ranks, and of their mean
        effective = max(1.0, min(effective, count * events.worth / events.frames))
        return cls(effective, (float(min(low)), float(max(high))), _left_out_rate(normal, promise), events)

    def warnings(self, count: int, promise: FalseAlarms) -> list[str]:
        """Say in words what stands against the promise."""
        found = []
        anywhere = f"the rate may lie anywhere from {self.interval[0]:.3g} to {self.interval[1]:.3g}"
        if self.effective_count < promise.frames_needed:
            found.append(
                f"neighbouring frames look alike: these {count} say as much as {self.effective_count:.0f} independent "
                f"ones, and {promise} takes {promise.frames_needed}; {anywhere}"
            )
        elif self.events.worth < FEWEST_EVENTS:
            found.append(
                f"few events set the threshold: the {self.events.frames} highest frames say as much as "
                f"{self.events.worth:.1f} events apart from each other; {anywhere}; calibrate on footage "
                f"{math.ceil(FEWEST_EVENTS / self.events.worth)} times as long"
            )
        if self.left_out_rate is None:
            found.append("all frames are of one clip, so nothing is known of how other hours and days differ from it")
        elif self.left_out_rate > 2 * promise.rate:
            found.append(
                f"clips differ: under the threshold that the other clips set, {self.left_out_rate:.3g} of the "
                f"frames alarm, not {promise.rate:.3g}; expect that of a new clip, or calibrate on more of them"
            )
        return found


@dataclass(frozen=True)
class Events:
    """The frames at or above a threshold: who walks by for thirty frames is one event, not thirty.

    Frames closer together than a gap belong to one event (runs declustering, Smith and Weissman 1994; Ferro and Segers
    2003); the gap is the block length of "at or above, or not".
    """

    frames: int
    worth: float
    """Events of one size that would say as much: (sum s)^2 / sum s^2 of the sizes s, Kish 1965."""

    @classmethod
    def of(cls, high: npt.NDArray[np.bool_], clips: Indices) -> "Events":
        """Group the frames that are high [n], at least one of them; an event ends with its clip [n]."""
        where = np.flatnonzero(high)
        apart = (np.diff(where) > block_length(high.astype(np.intp))) | (np.diff(clips[where]) != 0)
        sizes = np.diff(np.flatnonzero(np.r_[True, apart, True]))
        return cls(len(where), len(where) ** 2 / float((sizes**2).sum()))

    def interval(self, rate: float) -> tuple[float, float]:
        """Return the 95 % interval of a rate that so many events show: they come as a Poisson process, Garwood 1936."""
        low = gamma_quantile(INTERVAL[0], self.worth) / self.worth
        high = gamma_quantile(INTERVAL[1], self.worth + 1) / self.worth
        return rate * low, min(1.0, rate * high)


def gamma_quantile(probability: float, shape: float) -> float:
    """Return a quantile of the gamma distribution of scale 1, near enough for a shape k of 1 or more.

    That is k (1 - 1 / (9 k) + z / (3 sqrt k))^3, Wilson and Hilferty 1931, with z the quantile of N(0, 1).
    """
    z = NormalDist().inv_cdf(probability)
    return shape * float(1 - 1 / (9 * shape) + z / (3 * math.sqrt(shape))) ** 3


def _left_out_rate(normal: NormalScores, promise: FalseAlarms) -> float | None:
    """Return the share of frames above the threshold that other clips set; clips are left out in up to 20 turns."""
    names, clips = np.unique(normal.clips, return_inverse=True)
    if len(names) == 1:
        return None
    turns = clips % LEAVE_OUT_TURNS
    alarms = 0
    for turn in np.unique(turns):
        inside = turns == turn
        others = normal.scores[~inside]
        rank = min(_rank(len(others), promise.rate), len(others))
        alarms += int((normal.scores[inside] > np.partition(others, rank - 1)[rank - 1]).sum())
    return alarms / len(normal)


@dataclass(frozen=True)
class BlockBootstrap:
    """Draws frames with replacement so that neighbours stay together: clips, and in each drawn clip blocks of it.

    The blocks have geometric lengths and go around the end of the clip (the stationary bootstrap, Politis and Romano
    1994, after Kuensch 1989); with one clip that is all. Drawing whole clips alone gives too narrow intervals where
    they are few.
    """

    starts: Indices
    """[clips], the first frame of each."""

    lengths: Indices
    """[clips], in frames."""

    blocks: Scores
    """[clips], the mean length of a block."""

    @classmethod
    def of(cls, series: npt.NDArray[np.integer], clips: Indices) -> "BlockBootstrap":
        """Choose the lengths of the blocks by the correlation in a series [n]."""
        starts = np.flatnonzero(np.r_[True, clips[1:] != clips[:-1]])
        lengths = np.diff(np.r_[starts, len(clips)])
        blocks = [block_length(series[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
        return cls(starts, lengths, np.asarray(blocks))

    def draw(self, rng: np.random.Generator) -> Indices:
        """Return the indices of the frames that are drawn; as many as the drawn clips have."""
        clips = rng.integers(len(self.starts), size=len(self.starts))
        lengths = self.lengths[clips]
        clip = np.repeat(clips, lengths)  # [frames], as all below
        place = np.arange(len(clip))
        begins = rng.random(len(clip)) < 1 / self.blocks[clip]
        begins[np.r_[0, np.cumsum(lengths)[:-1]]] = True
        begin = np.maximum.accumulate(np.where(begins, place, 0))
        within = (rng.integers(self.lengths[clip])[begin] + place - begin) % self.lengths[clip]
        return np.asarray(self.starts[clip] + within, np.intp)


def block_length(series: npt.NDArray[np.integer]) -> float:
    """Return the mean block length that estimates the variance of a series' mean best; Politis and White 2004.

    As corrected by Patton, Politis and White 2009: (2 G^2 n / D)^(1/3), with D = 2 s^4 for the stationary bootstrap;
    G and s^2 are sums of the autocovariances, with the factor |lag| and without, under a flat-top window. At most a
    third of the series.
    """
    count = len(series)
    centred = series - np.mean(series)
    if count < 6 or not centred.any():
        return 1.0
    spectrum = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    covariances = np.fft.irfft(spectrum)[:count] / count  # at lags 0, 1, ...
    reach = min(max(1, 2 * _last_correlated(covariances / covariances[0])), count - 1)
    lags = np.arange(1, reach + 1)
    window = np.minimum(1, 2 * (1 - lags / reach))
    weighted = 2 * window * covariances[lags]
    long_run = covariances[0] + weighted.sum()
    if long_run <= 0:
        return 1.0
    length = float(np.cbrt(count * ((lags * weighted).sum() / long_run) ** 2))
    return min(max(1.0, length), count / 3)


def _last_correlated(correlations: Scores) -> int:
    """Return the last lag before a run of five or more correlations that are no more than chance."""
    count = len(correlations)
    run = max(5, math.ceil(math.log10(count)))
    small = np.abs(correlations[1:]) < 2 * math.sqrt(math.log10(count) / count)
    runs = np.convolve(small, np.ones(run), "valid") if len(small) >= run else np.zeros(0)
    quiet = np.flatnonzero(runs > run - 0.5)
    return int(quiet[0]) if len(quiet) else min(math.ceil(math.sqrt(count)) + run, count - 1)
