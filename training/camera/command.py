"""The command denoise-camera, from footage to a model folder, with what there is to say on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.autoencoders.base import Denoiser
from training.camera.comparison import CLEAN_PSNR, LEAST_GAIN, Comparison, blind, denoise_patches
from training.camera.folder import write_folder
from training.camera.footage import read_footage
from training.camera.learn import Study, settings, study, teach
from training.camera.order import Order
from training.card import markdown
from training.config import Recipe
from training.errors import RunError
from training.export import check_target
from training.weights import load_weights


def denoise_camera(order: Order) -> Iterator[str]:
    """Learn a camera's noise; yield what was found. Writes no folder where it would be of no use.

    Raises ClearwatchError or TrainingError where the model or the footage cannot be used.
    """
    _check(order)
    recipe, general = load_denoiser(order.model)
    camera = study(read_footage(order.footage, recipe.data.channels, order.every), order.seed)
    yield describe(camera)
    if camera.noise.psnr >= CLEAN_PSNR:
        yield nothing_to_remove(camera.noise.psnr)
        return
    before = denoise_patches(blind(general), camera.frames, camera.held_out, f"measuring {order.base}")
    reached = camera.held_out.psnr(before)
    if reached >= CLEAN_PSNR:
        yield nothing_to_gain(order.base, reached)
        return
    config = settings(order.steps)
    lesson = teach(general, camera, before, config, order.seed)
    yield table(lesson.comparison, order.base)
    if not (lesson.comparison.worth_it or order.force):
        yield not_worth_it(order.base, lesson.comparison.gain)
        return
    write_folder(order, recipe, config, camera, lesson)
    yield f"{order.out}: {lesson.comparison.gain:+.2f} dB beside {order.base} on held-out frames"


def _check(order: Order) -> None:
    """Fail before the work, not after it."""
    check_target(order.out.resolve())
    if order.out.resolve() == order.model.resolve():
        raise RunError(f"--out {order.out} is the model to start from; name another folder")


def load_denoiser(folder: Path) -> tuple[Recipe, Denoiser[Any]]:
    """Return a denoiser's recipe and weights; raise RunError where the model is something else."""
    recipe, autoencoder = load_weights(folder)
    if not isinstance(autoencoder, Denoiser):
        raise RunError(f"{folder} is no denoiser but of the kind {recipe.autoencoder.kind}; name one with --model")
    return recipe, autoencoder


def describe(camera: Study) -> str:
    """Say in a few lines what the camera's noise is like."""
    height, width, channels = camera.frames.pixels[0].shape
    noise, pairs = camera.noise, camera.training
    return (
        f"{len(camera.frames)} {'grey' if channels == 1 else 'colour'} frames of {width} x {height} pixels, "
        f"{len(set(camera.frames.clips))} clips; {len(pairs)} patches in which nothing moves to learn from, "
        f"{len(camera.held_out)} later ones to measure on\n"
        f"noise: level {noise.level:.1f}, RMS {noise.rms:.1f} of 255 levels, PSNR {noise.psnr:.1f} dB; correlation "
        f"{noise.spatial[0].values[0]:.2f} with the next pixel, {noise.temporal.values[0]:.2f} with the next frame; "
        f"frames {camera.stride} apart are independent\n"
        f"clean patches are means of frames in which nothing moves, and off by {pairs.clean_error:.2f} levels"
    )


def nothing_to_remove(psnr: float) -> str:
    """Say that the frames are clean as they are."""
    return (
        f"nothing to remove: where nothing moves, the noise leaves frames at {psnr:.1f} dB PSNR, and a denoiser can "
        f"but harm frames of {CLEAN_PSNR:g} dB and more. No model is written"
    )


def nothing_to_gain(general: str, psnr: float) -> str:
    """Say that the general denoiser leaves nothing to improve."""
    return (
        f"nothing left to remove: {general} brings held-out frames to {psnr:.1f} dB, and from {CLEAN_PSNR:g} dB on "
        f"there is nothing to see. Take {general}; no model is written"
    )


def not_worth_it(general: str, gain: float) -> str:
    """Say that the camera's own denoiser is hardly better than the general one."""
    return (
        f"not worth a model of its own: it gains {gain:+.2f} dB on {general}, and {LEAST_GAIN:g} dB are asked for. "
        f"Take {general}; or try more --steps, or write it all the same with --force. No model is written"
    )


def table(comparison: Comparison, general: str) -> str:
    """Return the figures of held-out frames as a Markdown table."""
    methods = {"noisy": comparison.noisy, f"{general}, blind": comparison.general,
               "camera's own, blind": comparison.camera}  # fmt: skip
    return markdown([{"held-out frames": method, "PSNR (dB)": value} for method, value in methods.items()])
