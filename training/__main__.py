"""The command line: python -m training kinds | train | export | evaluate | make | calibrate | ..."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import ClearwatchError
from training.errors import RunError, TrainingError

if TYPE_CHECKING:
    from training.config import Recipe
    from training.data import Split

CTRL_C = 130  # the exit code that shells know it by

EXAMPLES = """\
examples:
  python -m training kinds                                  what there is to train, with every setting
  python -m training train walkway --data data              a shipped recipe, into runs/walkway
  python -m training train camera --data my_frames \\
      --set autoencoder.latent_dim=64 --set train.steps=5000
  python -m training train walkway --data data --resume     go on after Ctrl-C
  python -m training export runs/walkway --data data --out models/walkway
  python -m training evaluate models/walkway --data data
  python -m training make walkway --data data               the three in a row
  python -m training calibrate models/walkway normal_frames --camera door --false-alarms-per-hour 1 --fps 2
  python -m training denoise-camera my_frames --out models/denoiser-mycam
  python -m training compare my_frames --minutes 5          which kind suits the camera, beside what learns nothing
  python -m training noise photo.jpg --out noise.jpg        what each corruption does to a picture

A recipe is a YAML file; the shipped ones are in training/configs/. Losses: tensorboard --logdir runs
"""


def _kinds(_: argparse.Namespace) -> None:
    from training.autoencoders.base import AutoencoderConfig, kinds  # noqa: PLC0415 - torch takes seconds to import

    for name, kind in kinds().items():
        doc = sys.modules[kind.__module__].__doc__ or ""
        print(f"{name}: {doc.splitlines()[0]}")
        print(f"    tasks: {', '.join(sorted(kind.tasks))}")
        for key, field in kind.Config.model_fields.items():
            if key not in AutoencoderConfig.model_fields:
                default = field.get_default(call_default_factory=True)
                print(f"    {key} = {default!r}  {field.description or ''}".rstrip())


def _train(arguments: argparse.Namespace) -> None:
    from training.checkpoints import check_run  # noqa: PLC0415
    from training.config import read_recipe  # noqa: PLC0415
    from training.frame_size import with_frame_size  # noqa: PLC0415
    from training.trainer import train  # noqa: PLC0415

    recipe = read_recipe(arguments.recipe, arguments.set)
    run = arguments.run or Path("runs") / recipe.name
    check_run(run, resume=arguments.resume)
    recipe = with_frame_size(recipe, arguments.data)
    parts = _parts(recipe, arguments.data)
    try:
        best = train(recipe, parts, run, resume=arguments.resume)
    except SystemExit as stop:  # Lightning's way to end after Ctrl-C, once everything is saved
        again = ["train", arguments.recipe, "--data", str(arguments.data), "--run", str(run), "--resume"]
        settings = [word for setting in arguments.set for word in ("--set", setting)]
        print(f"\nstopped and saved; go on with: python -m training {shlex.join(again + settings)}", file=sys.stderr)
        raise SystemExit(CTRL_C) from stop
    print(f"best checkpoint: {best}\nnext: python -m training export {run} --data {arguments.data}", file=sys.stderr)


def _parts(recipe: "Recipe", root: Path) -> "Split":
    """Load and split the frames; say what came of it."""
    from training.calibrate import check_enough  # noqa: PLC0415
    from training.data import load, split  # noqa: PLC0415

    frames = load(recipe.data, root)
    if frames.unreadable:
        print(f"{len(frames.unreadable)} unreadable files left out, {frames.unreadable[0]} first", file=sys.stderr)
    parts = split(frames, recipe.data, recipe.seed)
    if recipe.score is not None:
        check_enough(len(parts.calibration), recipe.score.false_alarm_rate)
    print(f"{len(parts.train)} frames to train on, {len(parts.validation)} to validate, "
          f"{len(parts.calibration)} to calibrate", file=sys.stderr)  # fmt: skip
    return parts


def _export(arguments: argparse.Namespace) -> None:
    from training.export import export  # noqa: PLC0415
    from training.trainer import load_run  # noqa: PLC0415

    recipe, autoencoder = load_run(arguments.run)
    out = arguments.out or Path("models") / recipe.name
    manifest = export(recipe, autoencoder, _parts(recipe, arguments.data), out)
    print(f"{out}: {manifest.name} version {manifest.version}, can {', '.join(manifest.tasks)}", file=sys.stderr)


def _evaluate(arguments: argparse.Namespace) -> None:
    from runtime.devices import select_device  # noqa: PLC0415
    from runtime.model import Model  # noqa: PLC0415
    from training.config import parse_recipe  # noqa: PLC0415
    from training.evaluate import evaluate  # noqa: PLC0415

    model = Model.open(arguments.model, select_device(arguments.device))
    recipe = parse_recipe(model.manifest.provenance.config, f"{arguments.model}/manifest.json: provenance.config")
    if not recipe.evaluate:
        raise RunError(f"the recipe of {recipe.name} names nothing under `evaluate:`; see docs/training.md")
    evaluate(arguments.model, model, recipe, arguments.data)
    print((arguments.model / "README.md").read_text(encoding="utf-8"))


def _make(arguments: argparse.Namespace) -> None:
    from training.config import read_recipe  # noqa: PLC0415

    for name in arguments.recipes:
        recipe = read_recipe(name, arguments.set)
        run, folder = arguments.runs / recipe.name, arguments.models / recipe.name
        shared = {"data": arguments.data, "set": arguments.set, "device": arguments.device}
        print(f"=== {name}", file=sys.stderr)
        _train(argparse.Namespace(recipe=name, run=run, resume=run.is_dir(), **shared))
        _export(argparse.Namespace(run=run, out=folder, **shared))
        if recipe.evaluate:
            _evaluate(argparse.Namespace(model=folder, **shared))


def _calibrate(arguments: argparse.Namespace) -> None:
    from runtime.calibrations import FOLDER  # noqa: PLC0415
    from runtime.devices import select_device  # noqa: PLC0415
    from runtime.model import Model  # noqa: PLC0415
    from training.calibrate import Order, calibrate_folder  # noqa: PLC0415

    fields = {key: value for key, value in vars(arguments).items() if key not in {"command", "device"}}
    fields["model"] = arguments.model.resolve()
    fields["calibrations"] = arguments.calibrations or fields["model"].parent / FOLDER
    for message in calibrate_folder(Model.open(fields["model"], select_device(arguments.device)), Order(**fields)):
        print(message, flush=True)


def _calibrate_arguments(calibrate: argparse.ArgumentParser) -> None:
    calibrate.add_argument("model", type=Path, help="model folder")
    calibrate.add_argument("frames", type=Path,
                           help="normal frames: folder (subfolders are clips), video or ARCHIVE.npz:KEY")  # fmt: skip
    calibrate.add_argument("--camera", type=_camera_name, metavar="NAME",
                           help="calibrate for this camera (default: replace the model's own calibration)")  # fmt: skip
    calibrate.add_argument("--false-alarm-rate", type=float, metavar="R",
                           help="share of normal frames that may alarm (default: the model's own)")  # fmt: skip
    calibrate.add_argument("--false-alarms-per-hour", type=float, metavar="X",
                           help="normal frames that may alarm in an hour, in place of a rate")  # fmt: skip
    calibrate.add_argument("--fps", type=float, metavar="Y", help="frames a second that will be scored")
    calibrate.add_argument("--every", type=_at_least(1), default=1, metavar="N",
                           help="take every N-th frame of each clip, as will be scored (default: 1)")  # fmt: skip
    calibrate.add_argument("--calibrations", type=Path, metavar="DIR",
                           help="where calibrations are (default: calibrations, beside the model)")  # fmt: skip


def _camera_name(text: str) -> str:
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

    from runtime.manifest import CameraName  # noqa: PLC0415

    try:
        return str(TypeAdapter(CameraName).validate_python(text))
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a camera: letters, digits, . - and _") from error


def _denoise_camera(arguments: argparse.Namespace) -> None:
    from training.camera.command import denoise_camera  # noqa: PLC0415
    from training.camera.order import Order  # noqa: PLC0415

    fields = {key: value for key, value in vars(arguments).items() if key != "command"}
    for message in denoise_camera(Order(**fields)):
        print(message, flush=True)


def _camera_arguments(camera: argparse.ArgumentParser) -> None:
    camera.add_argument("footage", type=Path, help="a folder of frames (subfolders are clips), or a video")
    camera.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="model folder to write; its name becomes the model's")  # fmt: skip
    camera.add_argument("--model", type=Path, default=Path("models/denoiser-fast"), metavar="DIR",
                        help="denoiser to start from (default: models/denoiser-fast)")  # fmt: skip
    camera.add_argument("--steps", type=_at_least(1), default=600, metavar="N",
                        help="optimiser steps (default: 600)")  # fmt: skip
    camera.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of all random draws (default: 0)")
    camera.add_argument("--every", type=_at_least(1), default=1, metavar="N",
                        help="read every N-th frame only, of long footage (default: 1)")  # fmt: skip
    camera.add_argument("--force", action="store_true", help="write the model even if it is no better")


COMPARE = """\
Which kind of autoencoder for this camera? Trains every kind that can score on the camera's own normal frames, sets
each one's threshold for the same share of false alarms, and measures which synthetic anomalies it finds in frames that
nothing was learnt from: foreign patches, blobs, regions out of focus or in other light, things that stand or pass.
Beside them stand statistics that learn nothing, and it says so where an autoencoder loses to them.
"""
COMPARE_EXAMPLES = """\
examples:
  python -m training compare my_frames                      a subfolder a clip, or videos; two minutes a kind
  python -m training compare door.mp4 --every 5 --minutes 10
  python -m training compare my_frames --kinds plain variational --steps 500

Half of the clips are learnt from, a quarter sets the thresholds, on a quarter is measured; fewer than four clips are
cut in time. The same command again trains nothing anew; after Ctrl-C it goes on. --out has the table (compare.md), the
picture (compare.png), and a model folder of each kind that can be served as it is.
"""


def _compare(arguments: argparse.Namespace) -> None:
    from training.compare.command import compare  # noqa: PLC0415
    from training.compare.order import Order  # noqa: PLC0415

    fields = {key: value for key, value in vars(arguments).items() if key != "command"}
    fields["kinds"] = tuple(arguments.kinds)
    fields["out"] = arguments.out or Path("runs") / f"compare-{arguments.frames.resolve().stem}"
    try:
        for message in compare(Order(**fields)):
            print(message, flush=True)
    except SystemExit as stop:  # as in _train
        print("\nstopped and saved; the same command goes on", file=sys.stderr)
        raise SystemExit(CTRL_C) from stop


def _compare_arguments(compare: argparse.ArgumentParser) -> None:
    compare.description, compare.epilog = COMPARE, COMPARE_EXAMPLES
    compare.formatter_class = argparse.RawDescriptionHelpFormatter
    compare.add_argument("frames", type=Path,
                         help="normal frames: folder (subfolders are clips), video or ARCHIVE.npz:KEY")  # fmt: skip
    compare.add_argument("--out", type=Path, metavar="DIR",
                         help="keeps runs, models, table and picture (default: runs/compare-FRAMES)")  # fmt: skip
    compare.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="only these kinds (default: all)")
    budget = compare.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=2.0, metavar="M",
                        help="train each kind for about so long, on an idle machine (default: 2)")  # fmt: skip
    budget.add_argument("--steps", type=_at_least(1), metavar="N",
                        help="train each kind for so many steps of 16 frames, instead of minutes")  # fmt: skip
    compare.add_argument("--false-alarm-rate", type=float, default=0.01, metavar="R",
                         help="share of normal frames that may alarm (default: 0.01)")  # fmt: skip
    compare.add_argument("--every", type=_at_least(1), default=1, metavar="N",
                         help="take every N-th frame of each clip (default: 1)")  # fmt: skip
    compare.add_argument("--pixels", type=_at_least(1024), default=6144, metavar="N",
                         help="scale frames to about so many pixels (default: 6144, as 96 x 64)")  # fmt: skip
    compare.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of all random draws (default: 0)")


def _noise(arguments: argparse.Namespace) -> None:
    from runtime.images import ImageFormat, encode, read  # noqa: PLC0415
    from training.noise_sheet import noise_sheet  # noqa: PLC0415

    if not arguments.picture.is_file():
        raise RunError(f"{arguments.picture} is no file; name an image")
    sheet = noise_sheet(read(arguments.picture, channels=3).pixels, arguments.seed)
    arguments.out.write_bytes(encode(sheet, ImageFormat.JPEG))
    print(arguments.out, file=sys.stderr)


def _noise_arguments(noise: argparse.ArgumentParser) -> None:
    noise.add_argument("picture", type=Path, help="an image; the middle of it is shown")
    noise.add_argument("--out", type=Path, required=True, metavar="FILE", help="JPEG to write")
    noise.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of all random draws (default: 0)")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


def _parser() -> argparse.ArgumentParser:
    from runtime.devices import DeviceChoice  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        "python -m training", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run)
        if name not in {"kinds", "calibrate", "denoise-camera", "compare", "noise"}:
            sub.add_argument("--data", type=Path, default=Path("data"), metavar="DIR",
                             help="where the recipe's sources are (default: data; see docs/data.md)")  # fmt: skip
        return sub

    command("kinds", _kinds, "list the kinds of autoencoder and their settings")
    train = command("train", _train, "train a recipe; Ctrl-C saves")
    train.add_argument("recipe", help="a shipped recipe's name, or a YAML file")
    train.add_argument("--run", type=Path, metavar="DIR", help="run folder (default: runs/NAME)")
    train.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
    export = command("export", _export, "export a run to a model folder: ONNX, parity, calibration, card")
    export.add_argument("run", type=Path, help="run folder")
    export.add_argument("--out", type=Path, metavar="DIR", help="model folder (default: models/NAME)")
    evaluate = command("evaluate", _evaluate, "measure a model folder, and write the figures into it")
    evaluate.add_argument("model", type=Path, help="model folder")
    make = command("make", _make, "train (or go on), export and evaluate recipes")
    make.add_argument("recipes", nargs="+", help="recipes, one after the other")
    make.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR",
                      help="where the run folders are (default: runs)")  # fmt: skip
    make.add_argument("--models", type=Path, default=Path("models"), metavar="DIR",
                      help="where the model folders go (default: models)")  # fmt: skip
    calibrate = command("calibrate", _calibrate, "set a model's threshold on a camera's normal frames")
    _calibrate_arguments(calibrate)
    _camera_arguments(command("denoise-camera", _denoise_camera, "fine-tune a denoiser to one camera's own noise"))
    _compare_arguments(command("compare", _compare, "find the kind of autoencoder that suits a camera"))
    _noise_arguments(command("noise", _noise, "draw what each corruption does to a picture"))
    for sub in (train, make):
        sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="override a key of the recipe, as in train.steps=100")  # fmt: skip
    for sub in (evaluate, make, calibrate):
        sub.add_argument("--device", type=DeviceChoice, default=DeviceChoice.AUTO, choices=list(DeviceChoice),
                         help="what the exported model runs on (default: auto)")  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; errors that the user can cure are one message and exit code 2, Ctrl-C is 130."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except (ClearwatchError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before or after the training proper, where there is nothing to save
        print("\nstopped", file=sys.stderr)
        return CTRL_C
    return 0


if __name__ == "__main__":
    sys.exit(main())
