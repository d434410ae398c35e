"""What motion cannot see: a bag, a cart or a person that stands where nobody ever stands, in normal test frames."""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from benchmarks.anomalies.bench import Bench
from benchmarks.anomalies.footage import Footage, read_clips
from benchmarks.anomalies.scorer import Scorer, Scores
from benchmarks.musts import Must, Side
from training.card import Row
from training.data import Frames
from training.evaluate import separation
from training.pseudo_anomalies import Grey, Scene, Thing, leave_standing

SEED = 0
MUST = 90.0
ALL = "all (AUROC, %)"


def standing(bench: Bench) -> list[Must]:
    """Paste each thing into each clip and compare its normal frames with what they scored before."""
    footage = _with_normal_frames(bench.footage)
    scene = Scene(_grey_clips(read_clips(bench.ped2, "train")))
    longest = max(scorer.time for scorer in bench.models)
    counted = ~footage.anomalous & footage.full(longest)
    before = {scorer.name: scorer.judge(footage.frames).scores[counted] for scorer in bench.scorers}
    after: dict[str, dict[Thing, Scores]] = {scorer.name: {} for scorer in bench.scorers}
    for thing in tqdm(Thing, "standing things", disable=None):
        spoiled = footage.showing(list(_spoiled(footage, scene, thing)))
        for scorer in bench.scorers:
            after[scorer.name][thing] = scorer.judge(spoiled.frames).scores[counted]
    rows = {scorer.name: _row(scorer, before[scorer.name], after[scorer.name]) for scorer in bench.scorers}
    title = f"Standing things in {int(counted.sum())} normal test frames, each thing once a clip, seed {SEED}"
    bench.report.add(title, list(rows.values()))
    found = {scorer.name: float(rows[scorer.name][ALL]) for scorer in bench.models}
    return [Must("standing things, AUROC (%)", Side.AT_LEAST, MUST, found)]


def _with_normal_frames(footage: Footage) -> Footage:
    clips = [clip for clip in footage.by_clip() if not footage.anomalous[clip].all()]
    return footage.subset(np.concatenate(clips))


def _grey_clips(frames: Frames) -> list[Grey]:
    clips = np.asarray(frames.clips)
    return [frames.batch(np.flatnonzero(clips == clip).tolist())[..., 0] for clip in np.unique(clips)]


def _spoiled(footage: Footage, scene: Scene, thing: Thing) -> Iterator[Grey]:
    """Yield the frames [h, w, 1] with a thing in them; people are cut from the clip before."""
    clips = _grey_clips(footage.frames)
    for index, clip in enumerate(clips):
        rng = np.random.default_rng([SEED, list(Thing).index(thing), index])
        yield from leave_standing(clip, clips[index - 1], scene, thing, rng).frames[..., None]


def _row(scorer: Scorer, before: Scores, after: dict[Thing, Scores]) -> Row:
    row: dict[str, str | float] = {"": scorer.name, ALL: 100 * separation(before, np.concatenate(list(after.values())))}
    return row | {f"{thing} (AUROC, %)": 100 * separation(before, scores) for thing, scores in after.items()}
