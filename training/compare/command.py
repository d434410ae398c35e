"""The command compare: from a camera's normal frames to the table, the picture and the choice."""

from collections.abc import Iterator

from training.compare.candidates import find_candidates
from training.compare.ladder import Ladder, climb
from training.compare.order import Order
from training.compare.parts import read_parts
from training.compare.pictures import draw_heat_maps
from training.compare.table import aligned, protocol, rows, verdict

TABLE, PICTURE = "compare.md", "compare.png"
CAPTION = "One anomaly of every sort, outlined, and the heat maps of the kinds, the best first; green frame: caught."


def compare(order: Order) -> Iterator[str]:
    """Train, measure, and yield what was found; the same is written to compare.md and compare.png in `order.out`.

    Raises DataError or RunError where the frames or the folder cannot be used.
    """
    find_candidates(order)
    parts = read_parts(order)
    yield str(parts)
    ladder = climb(order, parts)
    write(ladder)
    yield "\n" + aligned(rows(ladder)) + "\n"
    yield from verdict(ladder)
    yield f"{order.out / TABLE}, {order.out / PICTURE}; the models that can be served are in {order.out / 'models'}"


def write(ladder: Ladder) -> None:
    """Write the table with its sentences, and the picture."""
    order = ladder.order
    draw_heat_maps(ladder).savefig(order.out / PICTURE, dpi=100)
    text = [
        f"# Which kind for {order.source}", protocol(ladder), aligned(rows(ladder)),
        "\n".join(f"- {sentence}" for sentence in verdict(ladder)),
        f"![{CAPTION}]({PICTURE})", f"*{CAPTION}*", f"```\n{order.command}\n```",
    ]  # fmt: skip
    (order.out / TABLE).write_text("\n\n".join(text) + "\n", encoding="utf-8")
