"""Which kind for a camera: the command compare on the footage, as a user would run it."""

from benchmarks.lecture.course import SEED, Course
from benchmarks.lecture.page import Section
from training.compare.command import CAPTION
from training.compare.ladder import climb
from training.compare.order import Order
from training.compare.parts import read_parts
from training.compare.pictures import draw_heat_maps
from training.compare.table import protocol, rows, verdict

MINUTES = 10.0  # of training for each kind
QUICK_STEPS, QUICK_EVERY, QUICK_RATE = 20, 3, 0.05


def compare(course: Course, section: Section) -> None:
    """Train every kind on normal footage and show the ladder."""
    order = order_of(course)
    ladder = climb(order, read_parts(order))
    course.minutes.update({rung.name: rung.detector.minutes or 0.0 for rung in ladder.autoencoders})
    section.say(
        "Nobody has labelled a new camera's frames, so anomalies are made: `python -m training compare FRAMES` trains "
        "every kind that can score on the camera's own normal frames, sets thresholds for equal false alarms, and puts "
        f"synthetic anomalies into frames that nothing was learnt from. Here: `{command_of(order)}`."
    )
    section.table(protocol(ladder).rstrip("."), rows(ladder))
    section.plot("heat-maps", CAPTION, draw_heat_maps(ladder))
    section.say("\n".join(f"- {sentence}" for sentence in verdict(ladder)))


def order_of(course: Course) -> Order:
    """Return what is compared: kept beside the other models of the lecture."""
    frames, out = course.root / "ped2" / "train", course.folder / "models" / "compare"
    if course.quick:
        return Order(frames, out, false_alarm_rate=QUICK_RATE, steps=QUICK_STEPS, every=QUICK_EVERY, seed=SEED)
    return Order(frames, out, minutes=MINUTES, seed=SEED)


def command_of(order: Order) -> str:
    """Return the command line with the data where the documentation has them."""
    return order.command.replace(str(order.frames), "data/ped2/train")
