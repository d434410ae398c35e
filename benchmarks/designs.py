"""What the design of `walkway` was chosen by: normal clips left out in turn, with walkers made faster and things left.

Motion by itself, looks by themselves, and what it costs motion to listen to looks.

No test clip is read. `make bench-designs DATA=...`; DATA is the folder `ped2` or the one that holds it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.anomalies.designs import (
    CHOSEN,
    LOOKS,
    MOTION,
    SETTINGS,
    Least,
    Scale,
    Span,
    deviations,
    standing,
    worst,
)
from benchmarks.anomalies.footage import find_ped2, read_clips
from benchmarks.anomalies.walkers import FIRST, STEP, STEPS, Episode, Floats, cells, episodes, halved_scene
from benchmarks.report import Report, arguments
from training.autoencoders.spatiotemporal import Tail
from training.card import Row
from training.evaluate import auroc, minmax_by_clip, separation
from training.pseudo_anomalies import Grey, Scene, Thing, leave_standing
from training.speediness import Examples

FOLDS = 4
WORST = 6  # blocks
MOMENTS = (1, 2, 4, 6)  # whose scores are averaged
NEAR = 8  # moments before and after a walker is faster: a score that lags pays there
SPANS = tuple(Span(*span) for span in ((5, 1), (7, 2), (6, 3), (8, 2), (16, 1), (11, 2)))
EVERY = 3  # clips, of those that end at every other frame
SPAN = Span(6, 3)
JUDGED = 2  # moments
LATE = FIRST // STEP  # every other frames before the first moment
COSTS = (1.0, 4.0, 6.0, 8.0, 14.0, 22.0)  # nats
CAPS = (6.0, 7.0, 8.0, 9.0, 14.0, np.inf)  # nats
COST = 6.0  # with each cap

REACHES = SETTINGS.reaches

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Normal:
    """The training clips of the camera."""

    clips: Sequence[Grey]

    @cached_property
    def examples(self) -> list[Examples]:
        """The cells of each clip, as they are and played faster."""
        scene = halved_scene(self.clips)
        return [_examples(clip, scene) for clip in tqdm(self.clips, "flow", disable=None)]

    @cached_property
    def episodes(self) -> dict[float, list[list[Episode]]]:
        """Walkers of each clip made faster, by how much."""
        background = np.median(np.concatenate([clip[::5] for clip in self.clips]), axis=0).astype(np.uint8)
        return {
            factor: [
                list(
                    episodes(
                        clip, background, known.normal.numpy(), known.faster[:, REACHES.index(step)].numpy(), index
                    )
                )
                for index, (clip, known) in enumerate(zip(self.clips, self.examples, strict=True), 1)
            ]
            for factor, step in STEPS.items()
        }

    def folds(self) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the clips to learn from and those that are left out."""
        every = range(len(self.clips))
        for fold in range(FOLDS):
            out = list(every)[fold::FOLDS]
            yield [index for index in every if index not in out], out


def _examples(clip: Grey, scene: Floats) -> Examples:
    normal, *faster = (torch.from_numpy(cells(clip, scene, step)) for step in (STEP, *REACHES))
    return Examples(normal, torch.stack(faster, 1))


def main() -> None:
    """Print the tables of motion and of looks."""
    options = arguments(__doc__)
    cv2.setNumThreads(1)
    frames = read_clips(find_ped2(options.data), "train")
    names = np.asarray(frames.clips)
    found = Normal([frames.batch(np.flatnonzero(names == name).tolist())[..., 0] for name in np.unique(names)])
    report = Report(f"{len(found.clips)} normal clips in {FOLDS} folds, each left out once; AUROC in %, one threshold")
    scales = {
        name: [design([found.examples[index] for index in learn]) for learn, _ in found.folds()]
        for name, design in MOTION.items()
    }
    for name, of_folds in scales.items():
        report.add("One walker faster", _motion_rows(name, of_folds, found))
    things = [_things(found, out, learn) for learn, out in found.folds()]
    for span in SPANS:
        rows = [_looks_row(name, least, span, found, things) for name, least in LOOKS.items()]
        report.add("Things that stand, by looks alone", rows)
    parts = zip(found.folds(), things, scales[CHOSEN], strict=True)
    evidence = [_evidence(found, out, left, scale) for (_, out), left, scale in parts]
    title = "Looks or motion, the stronger in each block"
    report.add(title, [_fused_row({"cost of looks (nats)": cost}, cost, np.inf, evidence) for cost in COSTS])
    report.add(
        f"{title}, at a cost of {COST:g}", [_fused_row({"cap (nats)": cap}, COST, cap, evidence) for cap in CAPS]
    )
    report.write(options.json)


def _motion_rows(name: str, scales: Sequence[Scale], normal: Normal) -> list[Row]:
    before: dict[int, Scores] = {}
    faster: dict[float, list[tuple[Episode, Scores]]] = {factor: [] for factor in STEPS}
    for (_, out), scale in zip(normal.folds(), scales, strict=True):
        for index in out:
            before[index] = worst(scale(normal.examples[index].normal.numpy()), WORST)
            for factor, of_clips in normal.episodes.items():
                for episode in of_clips[index]:
                    scores = before[index].copy()
                    scores[episode.moments] = worst(scale(episode.cells), WORST)
                    faster[factor].append((episode, scores))
    return [_motion_row(name, moments, list(before.values()), faster) for moments in MOMENTS]


def _motion_row(
    name: str, moments: int, before: Sequence[Scores], faster: dict[float, list[tuple[Episode, Scores]]]
) -> Row:
    row: dict[str, str | float] = {"": name, "moments": float(moments)}
    still = np.concatenate([_averaged(scores, moments) for scores in before])
    for factor, found in faster.items():
        averaged = [(episode.moments, _averaged(scores, moments)) for episode, scores in found]
        hurried = np.concatenate([scores[chosen] for chosen, scores in averaged])
        beside = np.concatenate([scores[_near(chosen, len(scores))] for chosen, scores in averaged])
        row[f"{factor} times as fast"] = _auroc(still, hurried)
        row[f"{factor}, beside"] = _auroc(beside, hurried)
        labels = np.concatenate([np.isin(np.arange(len(scores)), chosen) for chosen, scores in averaged])
        of_clip = np.repeat([str(number) for number in range(len(found))], [len(scores) for _, scores in averaged])
        every = np.concatenate([scores for _, scores in averaged])
        row[f"{factor}, MINMAX"] = 100 * auroc(labels, minmax_by_clip(every, of_clip))
    return row


def _near(chosen: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Return the moments shortly before and after the chosen ones."""
    around = np.arange(max(0, chosen[0] - NEAR), min(count, chosen[-1] + NEAR + 1))
    return np.setdiff1d(around, chosen)


def _averaged(scores: Scores, moments: int) -> Scores:
    """Average each with those before it; the first ones have what the first full mean has."""
    full = np.convolve(scores, np.full(moments, 1 / moments), "valid")
    return np.concatenate([np.full(moments - 1, full[0]), full])


@dataclass(frozen=True)
class Fold:
    """Some clips left out, at half the size and rate, as differences from the scene of the others."""

    normal: dict[int, Floats]
    things: dict[Thing, list[tuple[Floats, npt.NDArray[np.bool_]]]]
    """With something left in each clip, and whether it is to be seen."""
    known: list[Floats]
    """The clips to learn from, in the same form."""


def _things(normal: Normal, out: Sequence[int], learn: Sequence[int]) -> Fold:
    scene = Scene([normal.clips[index] for index in learn], 10)
    halved = [_halved(normal.clips[index]) for index in learn]
    background = np.median(np.concatenate([clip[::6] for clip in halved]), axis=0)
    found: dict[Thing, list[tuple[Floats, npt.NDArray[np.bool_]]]] = {thing: [] for thing in Thing}
    for place, index in enumerate(out):
        donor = normal.clips[out[place - 1]][::STEP]
        for kind, thing in enumerate(Thing):
            rng = np.random.default_rng([0, index + 1, kind])
            left = leave_standing(normal.clips[index][::STEP], donor, scene, thing, rng)
            found[thing].append((left.frames[:, ::2, ::2] - background, left.anomalous))
    apart = {index: _halved(normal.clips[index]) - background for index in out}
    return Fold(apart, found, [clip - background for clip in halved])


def _halved(clip: Grey) -> Floats:
    return clip[::STEP, ::2, ::2].astype(np.float32)


def _looks_row(name: str, least: Least, span: Span, normal: Normal, folds: Sequence[Fold]) -> Row:
    cells_of = {index: standing(apart, least, span, EVERY) for fold in folds for index, apart in fold.normal.items()}
    first = span.gap * (span.looks - 1)
    still: list[Scores] = []
    after: dict[Thing, list[Scores]] = {thing: [] for thing in Thing}
    for (learn, out), fold in zip(normal.folds(), folds, strict=True):
        scale = deviations([cells_of[index] for index in learn])
        still += [worst(scale(cells_of[index]), WORST) for index in out]
        for thing, of_clips in fold.things.items():
            for apart, seen in of_clips:
                scores = worst(scale(standing(apart, least, span, EVERY)), WORST)
                after[thing].append(scores[seen[first::EVERY]])
    before = np.concatenate(still)
    found = {str(thing): np.concatenate(scores) for thing, scores in after.items()}
    row: dict[str, str | float] = {"": name, "frames": float(STEP * first + 1), "looks": float(span.looks)}
    row |= {thing: _auroc(before, scores) for thing, scores in found.items()}
    return row | {"all": _auroc(before, np.concatenate(list(found.values())))}


@dataclass(frozen=True)
class Evidence:
    """Looks [n, rows, columns] at every n-th full clip and motion [fields, rows, columns], in nats."""

    looks: Tensor
    motion: Tensor
    seen: npt.NDArray[np.bool_]
    """Whether there is something to be found at every other frame."""

    def fused(self, cost: float, cap: float) -> Scores:
        """Score those clips that end where there is something to be found."""
        first = SPAN.gap * (SPAN.looks - 1)
        ends = torch.arange(first, len(self.motion) + LATE, EVERY)[: len(self.looks)]
        stands = (self.looks[: len(ends)] - cost).clamp(max=cap)
        moments = [torch.maximum(stands, self.motion[ends - LATE - before]) for before in range(JUDGED)]
        scores = torch.stack([maps.flatten(1).topk(WORST).values.mean(1) for maps in moments]).mean(0)
        return np.asarray(scores.numpy()[self.seen[ends]], np.float64)


def _evidence(normal: Normal, out: Sequence[int], fold: Fold, scale: Scale) -> dict[str, list[Evidence]]:
    """Return what is found in the clips as they are, with walkers twice as fast, and with each thing left in them."""
    least = LOOKS["least difference on one side"]
    known = [standing(clip, least, SPAN, EVERY)[::2] for clip in fold.known]
    apart, looks_tail = deviations(known), Tail()
    looks_tail.learn(torch.from_numpy(apart(np.concatenate(known))))

    def looks(differences: Floats) -> Tensor:
        evidence: Tensor = looks_tail(torch.from_numpy(apart(standing(differences, least, SPAN, EVERY))))
        return evidence

    found: dict[str, list[Evidence]] = {"": [], "twice as fast": [], **{str(thing): [] for thing in Thing}}
    for place, index in enumerate(out):
        motion, still = torch.from_numpy(scale(normal.examples[index].normal.numpy())), looks(fold.normal[index])
        found[""].append(Evidence(still, motion, np.ones(len(motion) + LATE, bool)))
        for thing, of_clips in fold.things.items():
            left, seen = of_clips[place]
            found[thing].append(Evidence(looks(left), motion, seen))
        for episode in normal.episodes[2.0][index]:
            faster, seen = motion.clone(), np.zeros(len(motion) + LATE, bool)
            faster[torch.from_numpy(episode.moments)] = torch.from_numpy(scale(episode.cells))
            seen[episode.moments + LATE] = True
            found["twice as fast"].append(Evidence(still, faster, seen))
    return found


def _fused_row(row: Row, cost: float, cap: float, folds: Sequence[dict[str, list[Evidence]]]) -> Row:
    """Report what is found among normal clips; and what is fast, where people who stand are normal too."""
    scores = {name: np.concatenate([one.fused(cost, cap) for fold in folds for one in fold[name]]) for name in folds[0]}
    before = scores.pop("")
    row = dict(row) | {name: _auroc(before, found) for name, found in scores.items()}
    beside = np.concatenate([before, scores[Thing.PERSON]])
    row |= {"twice as fast, beside people who stand": _auroc(beside, scores["twice as fast"])}
    return row | {"all that stand": _auroc(before, np.concatenate([scores[thing] for thing in Thing]))}


def _auroc(normal: Scores, anomalous: Scores) -> float:
    return 100 * separation(normal, anomalous)


if __name__ == "__main__":
    main()
