"""What the ladder says: the table, and in sentences which kind to take and which lose to what learns nothing."""

from collections.abc import Iterator, Sequence

from training.card import Row, markdown
from training.compare.ladder import Ladder, Rung

DRIFT = 3  # times the false alarms that were asked for


def rows(ladder: Ladder) -> list[Row]:
    """Return a row a detector, the best autoencoder first, then the baselines, then what was left out."""
    measured = [_row(ladder, rung) for rung in (*ladder.autoencoders, *ladder.baselines)]
    return [*measured, *({"": name, "recall (95 %)": "left out"} for name in ladder.left_out)]


def _row(ladder: Ladder, rung: Rung) -> Row:
    low, high = rung.interval
    by_sort = zip(ladder.anomalies.sorts, rung.caught.mean(1), strict=True)
    return {
        "": rung.name + ("" if rung.learns else " (learns nothing)"),
        "recall (95 %)": f"{100 * rung.recall:.0f} ({100 * low:.0f} to {100 * high:.0f})",
        **{sort: f"{100 * share:.0f}" for sort, share in by_sort},
        "AUROC": f"{100 * rung.auroc:.1f}",
        "false alarms": f"{100 * rung.false_alarms:.1f}",
        "ms a frame": f"{rung.milliseconds:.2f}",
        "graph, KB": "" if rung.detector.bytes is None else f"{rung.detector.bytes / 1000:,.0f}",
        "training, CPU min": "" if rung.detector.minutes is None else f"{rung.detector.minutes:.1f}",
    }


def aligned(rows: Sequence[Row]) -> str:
    """Format rows as a Markdown table whose columns stand in line on a terminal too."""
    cells = [line.strip("|").split("|") for line in markdown(rows).splitlines()]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        fill = "-" if set("".join(line)) == {"-"} else " "
        lines.append("|" + "|".join(cell.ljust(width, fill) for cell, width in zip(line, widths, strict=True)) + "|")
    return "\n".join(lines)


def protocol(ladder: Ladder) -> str:
    """Say what the figures are."""
    order, anomalies = ladder.order, ladder.anomalies
    count, places = len(anomalies.sorts) * anomalies.places, anomalies.places
    return (
        f"{order.source}, {ladder.parts}. Recall: % of {count} synthetic anomalies, {places} of each sort, whose frame "
        f"is above the threshold that {100 * order.false_alarm_rate:g} % of normal frames may exceed, and is not "
        "without the anomaly; in brackets its 95 % interval by block bootstrap. False alarms: % of the normal frames "
        "measured on. AUROC in %. Every detector judges the same frames. ms a frame: median on one thread, in "
        "onnxruntime, optical flow included. Clearly less, and to lose, is a difference at the same places whose "
        f"interval leaves out 0. Seed {order.seed}."
    )


def verdict(ladder: Ladder) -> Iterator[str]:
    """Yield what there is to be said, one sentence or two at a time."""
    yield from _losses(ladder)
    yield from _choice(ladder)
    yield from _drifts(ladder)
    for name, reason in ladder.left_out.items():
        yield f"{name} is left out: {reason}."


def _losses(ladder: Ladder) -> Iterator[str]:
    if not ladder.baselines:
        return
    best = ladder.baselines[0]
    losing = [rung for rung in ladder.autoencoders if rung.recall < best.recall]
    for rung in losing:
        clear = ladder.surpasses(best, rung)
        loses, chance = ("loses to", "") if clear else ("does no better than", "; the difference may be chance")
        yield (
            f"{rung.name} {loses} {best.name}, which learns nothing: it catches {_percent(rung)} of the anomalies, "
            f"{best.name} {_percent(best)}{chance}."
        )
    if ladder.autoencoders and not losing:
        yield f"No autoencoder loses to what learns nothing; the best of that, {best.name}, catches {_percent(best)}."


def _choice(ladder: Ladder) -> Iterator[str]:
    pick = ladder.pick
    if pick is None:
        yield "No kind could be trained: there is nothing to pick."
        return
    best = ladder.autoencoders[0]
    cost = f"{_percent(pick)} of the anomalies at {pick.milliseconds:.2f} ms a frame"
    if pick is best:
        why = "it catches most, and every faster kind clearly less"
    else:
        why = (
            f"the fastest of those that do not catch clearly less than the best, {best.name}, {_percent(best)} at "
            f"{best.milliseconds:.2f} ms"
        )
    yield f"Pick: {pick.name}, {cost}: {why}."
    nothing = next(iter(ladder.baselines), None)
    if nothing is not None and pick.recall < nothing.recall:
        yield (
            f"But {nothing.name} catches {_percent(nothing)}, and learns nothing: before you take any kind, train for "
            "longer (--minutes), on more frames or on larger ones (--pixels)."
        )


def _drifts(ladder: Ladder) -> Iterator[str]:
    asked = ladder.order.false_alarm_rate
    drifted = [rung for rung in ladder.rungs if rung.false_alarms > DRIFT * asked]
    if drifted:
        named = ", ".join(f"{rung.name} {100 * rung.false_alarms:.1f} %" for rung in drifted)
        yield (
            f"On the frames measured on, more normal frames alarm than the {100 * asked:g} % asked for: {named}. Some "
            "clips there are unlike those that set the thresholds; an anomaly in a frame that alarms anyway counts as "
            "missed. More clips, of all hours and weathers, would mend it."
        )


def _percent(rung: Rung) -> str:
    return f"{100 * rung.recall:.0f} %"
