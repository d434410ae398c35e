"""The model folder of one camera's denoiser: the general model's, with the camera's noise and figures on its card."""

from collections.abc import Iterator

from runtime.manifest import Manifest, Metric, write_manifest
from training.camera.footage import as_channels
from training.camera.learn import Lesson, Study
from training.camera.order import Order
from training.camera.pairs import PATCH
from training.camera.pictures import draw_noise, draw_patches
from training.card import BEFORE_EXPORT, write_text
from training.config import Recipe, TrainConfig
from training.data import DataConfig, Frames, Source, Split
from training.export import export


def write_folder(order: Order, general: Recipe, config: TrainConfig, camera: Study, lesson: Lesson) -> Manifest:
    """Export the fine-tuned denoiser to `order.out`, with figures and pictures; errors are those of the export."""
    recipe = _recipe(order, general, config, camera)
    exported = export(recipe, lesson.denoiser, Split(Frames(), _held_out(camera, recipe), Frames()), order.out)
    manifest = exported.model_copy(update={
        "metrics": tuple(_metrics(order, camera, lesson)),
        "provenance": exported.provenance.model_copy(update={"command": order.command}),
    })  # fmt: skip
    (order.out / "denoised.jpg").unlink()  # it shows noise of another sort
    draw_noise(order.out / "camera-noise.png", camera.noise)
    held_out = camera.held_out
    draw_patches(order.out / "camera.jpg", (held_out.noisy, lesson.general, lesson.camera, held_out.rounded))
    write_manifest(manifest, order.out)
    write_text(manifest, order.out)
    return manifest


def _recipe(order: Order, general: Recipe, config: TrainConfig, camera: Study) -> Recipe:
    source = Source(path=order.source)
    return general.model_copy(update={
        "name": order.out.name,
        "version": "1",
        "description": f"Removes the noise of one camera: {order.base}, fine-tuned on "
        f"{len(camera.training)} patches of {source.path} in which nothing moves.",
        "limitations": f"It knows the camera of {source.path} in the light that it was recorded in, and has seen "
        f"little but its background: for other cameras, and for another gain or light, {order.base} is better. "
        + general.limitations,
        "licence": f"{general.licence}; fine-tuned on frames of {source.path}",
        "seed": order.seed,
        "start_from": str(order.model),
        "data": DataConfig(sources=(source,), channels=general.data.channels, frame_stride=order.every, crop=PATCH),
        "train": config,
    })  # fmt: skip


def _held_out(camera: Study, recipe: Recipe) -> Frames:
    chosen = camera.frames.subset(sorted({place.frame for place in camera.held_out.places}))
    chosen.pixels = [as_channels(pixels, recipe.data.channels) for pixels in chosen.pixels]
    return chosen


def _metrics(order: Order, camera: Study, lesson: Lesson) -> Iterator[Metric]:
    """Yield the PSNR of every method, and what the noise is like."""
    held_out, noise = camera.held_out, camera.noise
    patches = (
        f"{len(held_out)} patches of {held_out.frames} held-out frames of {order.source}, against means of other frames"
    )
    methods = {
        "noisy input": lesson.comparison.noisy,
        f"{order.base}, blind": lesson.comparison.general,
        "this model, blind": lesson.comparison.camera,
    }
    figures = {
        ("noise level", "levels"): noise.level,
        ("RMS", "levels"): noise.rms,
        ("correlation with the next pixel of the row", ""): noise.spatial[0].values[0],
        ("correlation with the next frame", ""): noise.temporal.values[0],
        ("independent after", "frames"): camera.stride,
    }
    for method, value in methods.items():
        yield Metric(name="PSNR", value=value, unit="dB", data_set=patches, protocol=BEFORE_EXPORT, method=method,
                     seed=order.seed)  # fmt: skip
    patches = f"{len(camera.training)} patches of {order.source}"
    for (name, unit), value in figures.items():
        yield Metric(name=name, value=value, unit=unit, data_set=patches, protocol=BEFORE_EXPORT,
                     method="the camera's noise", seed=order.seed)  # fmt: skip
