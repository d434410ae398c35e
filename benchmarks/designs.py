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

from benchmarks.anomalies.designs import LOOKS, MOTION, Design, Least, Span, deviations, standing, worst
from benchmarks.anomalies.footage import find_ped2, read_clips
from benchmarks.anomalies.walkers import STEP, STEPS, Episode, Floats, cells, episodes
from benchmarks.report import Report, arguments
from training.autoencoders.spatiotemporal import Tail
from training.card import Row
from training.evaluate import auroc, minmax_by_clip
from training.pseudo_anomalies import Grey, Scene, Thing, leave_standing

FOLDS = 4
WORST = 6  # blocks
MOMENTS = (1, 4, 6, 8, 12)  # fields whose scores are averaged
SPANS = tuple(Span(*span) for span in ((5, 1), (7, 2), (6, 3), (8, 2), (16, 1), (11, 2)))
EVERY = 3  # clips, of those that end at every other frame
FUSED = (0, 2)  # folds
SPAN = Span(6, 3)
FIELDS = 6
COSTS = (1.0, 4.0, 6.0, 8.0, 14.0, 22.0)  # nats
CAPS = (6.0, 7.0, 8.0, 9.0, 14.0, np.inf)  # nats
COST = 6.0  # with each cap

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Normal:
    """The training clips of the camera."""

    clips: Sequence[Grey]

    @cached_property
    def cells(self) -> list[Floats]:
        """The motion of each clip."""
        return [cells(clip, STEP) for clip in tqdm(self.clips, "flow", disable=None)]

    @cached_property
    def episodes(self) -> dict[float, list[list[Episode]]]:
        """Walkers of each clip made faster, by how much."""
        background = np.median(np.concatenate([clip[::5] for clip in self.clips]), axis=0).astype(np.uint8)
        return {
            factor: [
                list(episodes(clip, background, factor, self.cells[index], index + 1))
                for index, clip in enumerate(tqdm(self.clips, f"{factor} times as fast", disable=None))
            ]
            for factor in STEPS
        }

    def folds(self) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the clips to learn from and those that are left out."""
        every = range(len(self.clips))
        for fold in range(FOLDS):
            out = list(every)[fold::FOLDS]
            yield [index for index in every if index not in out], out


def main() -> None:
    """Print the tables of motion and of looks."""
    options = arguments(__doc__)
    cv2.setNumThreads(1)
    frames = read_clips(find_ped2(options.data), "train")
    names = np.asarray(frames.clips)
    found = Normal([frames.batch(np.flatnonzero(names == name).tolist())[..., 0] for name in np.unique(names)])
    report = Report(f"{len(found.clips)} normal clips in {FOLDS} folds, each left out once; AUROC in %, one threshold")
    for name, design in MOTION.items():
        report.add("One walker faster", _motion_rows(name, design, found))
    things = [_things(found, out, learn) for learn, out in found.folds()]
    for span in SPANS:
        rows = [_looks_row(name, least, span, found, things) for name, least in LOOKS.items()]
        report.add("Things that stand, by looks alone", rows)
    evidence = [_evidence(found, *fold, things[number]) for number, fold in enumerate(found.folds()) if number in FUSED]
    title = f"Looks or motion, the stronger in each block; {len(FUSED)} of {FOLDS} folds"
    report.add(title, [_fused_row({"cost of looks (nats)": cost}, cost, np.inf, evidence) for cost in COSTS])
    report.add(f"{title}, at a cost of {COST:g}", [_fused_row({"cap (nats)": cap}, COST, cap, evidence) for cap in CAPS])
    report.write(options.json)


def _motion_rows(name: str, design: Design, normal: Normal) -> list[Row]:
    before: dict[int, Scores] = {}
    faster: dict[float, list[tuple[int, Episode, Scores]]] = {factor: [] for factor in STEPS}
    for learn, out in normal.folds():
        scale = design([normal.cells[index] for index in learn])
        for index in out:
            before[index] = worst(scale(normal.cells[index]), WORST)
            for factor, of_clips in normal.episodes.items():
                for episode in of_clips[index]:
                    scores = before[index].copy()
                    scores[episode.fields] = worst(scale(episode.cells), WORST)
                    faster[factor].append((index, episode, scores))
    return [_motion_row(name, moments, list(before.values()), faster) for moments in MOMENTS]


def _motion_row(
    name: str, moments: int, before: Sequence[Scores], faster: dict[float, list[tuple[int, Episode, Scores]]]
) -> Row:
    row: dict[str, str | float] = {"": name, "fields": float(moments)}
    still = np.concatenate([_averaged(scores, moments) for scores in before])
    for factor, found in faster.items():
        averaged = [_averaged(scores, moments) for _, _, scores in found]
        hurried = [scores[episode.fields] for (_, episode, _), scores in zip(found, averaged, strict=True)]
        row[f"{factor} times as fast"] = _auroc(still, np.concatenate(hurried))
        labels = np.zeros(sum(map(len, averaged)), bool)
        starts = np.cumsum([0, *map(len, averaged[:-1])])
        for start, (_, episode, _) in zip(starts, found, strict=True):
            labels[start + episode.fields] = True
        of_clip = np.repeat([str(number) for number in range(len(found))], [len(scores) for scores in averaged])
        row[f"{factor}, MINMAX"] = 100 * auroc(labels, minmax_by_clip(np.concatenate(averaged), of_clip))
    return row


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


def _things(normal: Normal, out: Sequence[int], learn: Sequence[int]) -> Fold:
    scene = Scene([normal.clips[index] for index in learn], 10)
    background = np.median(np.concatenate([_halved(normal.clips[index])[::6] for index in learn]), axis=0)
    found: dict[Thing, list[tuple[Floats, npt.NDArray[np.bool_]]]] = {thing: [] for thing in Thing}
    for place, index in enumerate(out):
        donor = normal.clips[out[place - 1]][::STEP]
        for kind, thing in enumerate(Thing):
            rng = np.random.default_rng([0, index + 1, kind])
            left = leave_standing(normal.clips[index][::STEP], donor, scene, thing, rng)
            found[thing].append((left.frames[:, ::2, ::2] - background, left.anomalous))
    return Fold({index: _halved(normal.clips[index]) - background for index in out}, found)


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
    """[fields + 1], whether there is something to be found at every other frame."""

    def fused(self, cost: float, cap: float) -> Scores:
        """Score those clips that end where there is something to be found."""
        first = SPAN.gap * (SPAN.looks - 1)
        ends = torch.arange(first, len(self.motion) + 1, EVERY)[: len(self.looks)]
        stands = (self.looks[: len(ends)] - cost).clamp(max=cap)
        moments = [torch.maximum(stands, self.motion[ends - 1 - before]) for before in range(FIELDS)]
        scores = torch.stack([maps.flatten(1).topk(WORST).values.mean(1) for maps in moments]).mean(0)
        return scores.numpy()[self.seen[ends]].astype(np.float64)


def _evidence(normal: Normal, learn: Sequence[int], out: Sequence[int], fold: Fold) -> dict[str, list[Evidence]]:
    """Return what is found in the clips as they are, with walkers twice as fast, and with each thing left in them."""
    least, design = (
        LOOKS["least difference on one side"],
        MOTION["over the pace of the row, doubted where little moves"],
    )
    background = np.median(np.concatenate([_halved(normal.clips[index])[::6] for index in learn]), axis=0)
    known = [standing(_halved(normal.clips[index]) - background, least, SPAN, EVERY)[::2] for index in learn]
    apart, pace = deviations(known), design([normal.cells[index] for index in learn])
    looks_tail, motion_tail = Tail(), Tail()
    looks_tail.learn(torch.from_numpy(apart(np.concatenate(known))))
    motion_tail.learn(torch.from_numpy(np.concatenate([pace(normal.cells[index][::3]) for index in learn])))

    def looks(differences: Floats) -> Tensor:
        return looks_tail(torch.from_numpy(apart(standing(differences, least, SPAN, EVERY))))

    found: dict[str, list[Evidence]] = {"": [], "twice as fast": [], **{str(thing): [] for thing in Thing}}
    for place, index in enumerate(out):
        motion, still = motion_tail(torch.from_numpy(pace(normal.cells[index]))), looks(fold.normal[index])
        found[""].append(Evidence(still, motion, np.ones(len(motion) + 1, bool)))
        for thing, of_clips in fold.things.items():
            left, seen = of_clips[place]
            found[thing].append(Evidence(looks(left), motion, seen))
        for episode in normal.episodes[2.0][index]:
            faster, seen = motion.clone(), np.zeros(len(motion) + 1, bool)
            faster[torch.from_numpy(episode.fields)] = motion_tail(torch.from_numpy(pace(episode.cells)))
            seen[episode.fields + 1] = True
            found["twice as fast"].append(Evidence(still, faster, seen))
    return found


def _fused_row(row: Row, cost: float, cap: float, folds: Sequence[dict[str, list[Evidence]]]) -> Row:
    """Report what is found among normal clips; and what is fast, where people who stand are normal too."""
    scores = {name: np.concatenate([one.fused(cost, cap) for fold in folds for one in fold[name]]) for name in folds[0]}
    before = scores.pop("")
    row = row | {name: _auroc(before, found) for name, found in scores.items()}
    beside = np.concatenate([before, scores[Thing.PERSON]])
    row |= {"twice as fast, beside people who stand": _auroc(beside, scores["twice as fast"])}
    return row | {"all that stand": _auroc(before, np.concatenate([scores[thing] for thing in Thing]))}


def _auroc(normal: Scores, anomalous: Scores) -> float:
    labels = np.repeat([False, True], [len(normal), len(anomalous)])
    return 100 * auroc(labels, np.concatenate([normal, anomalous]))


if __name__ == "__main__":
    main()
