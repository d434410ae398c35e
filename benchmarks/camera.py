"""A camera's own noise, learnt where the truth is known: UCSD Ped2 as it is, and with strong noise added to it.

The noise is that of a dark night: Poisson-Gaussian, blurred as in-camera noise reduction does, a new draw in every
frame. `make bench-camera DATA=...`
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from benchmarks.report import Report, arguments
from runtime.images import Pixels
from training.camera.command import describe, load_denoiser, nothing_to_remove
from training.camera.comparison import CLEAN_PSNR, Blind, blind, denoise_patches
from training.camera.footage import read_footage
from training.camera.learn import Study, settings, study, teach
from training.camera.pairs import Place
from training.card import Row
from training.data import Frames
from training.graph import to_levels, to_unit
from training.noise import LowLight, Smoothing

NOISE = LowLight(gain=(0.004, 0.004), read=(2, 2), spread=(Smoothing(luma=(0.7, 0.7)),))
MODEL = Path("models/denoiser-fast")
STEPS = 600
SEED = 0
MOVING = 15  # levels from the median of the clip


def main() -> None:
    """Print what is said of the camera as it is, and the figures of the noisy one."""
    options = arguments(__doc__)
    report = Report(f"see benchmarks/camera.py; seed {SEED}, {STEPS} steps from {MODEL}, {NOISE.model_dump_json()}")
    clean = read_footage(options.data / "ped2" / "train", 3)
    as_it_is = study(clean, SEED)
    print(describe(as_it_is))
    if as_it_is.noise.psnr >= CLEAN_PSNR:
        print(nothing_to_remove(as_it_is.noise.psnr))
    report.add("UCSD Ped2 as it is", [{"": "frames against the scene without noise", "PSNR (dB)": as_it_is.noise.psnr}])
    camera = study(_with_noise(clean), SEED)
    print(describe(camera))
    report.add("UCSD Ped2 with noise, held-out frames against the truth", _against_truth(camera, clean))
    report.write(options.json)


def _with_noise(clean: Frames) -> Frames:
    generator = torch.Generator().manual_seed(SEED)
    noisy = clean.subset(range(len(clean)))
    for index, pixels in enumerate(tqdm(clean.pixels, "adding noise", unit="frame", disable=None)):
        corrupted = NOISE(to_unit(torch.from_numpy(pixels[None])), generator).frames
        noisy.pixels[index] = to_levels(corrupted)[0].numpy()
    return noisy


def _against_truth(camera: Study, clean: Frames) -> list[Row]:
    _, general = load_denoiser(MODEL)
    before = denoise_patches(blind(general), camera.frames, camera.held_out, f"measuring {MODEL.name}")
    lesson = teach(general, camera, before, settings(STEPS), SEED)
    methods: dict[str, Blind] = {
        "noisy": lambda pixels: pixels,
        f"{MODEL.name}, blind": blind(general),
        "fine-tuned, blind": blind(lesson.denoiser),
    }
    patches = (camera.held_out.noisy, lesson.general, lesson.camera)
    rows = [_row(method, apply, camera, clean) for method, apply in methods.items()]
    for row, found in zip(rows, patches, strict=True):
        row["against clean patches (dB)"] = camera.held_out.psnr(found)
    truth = _patches(clean, camera.held_out.places)
    return [*rows, {"": "clean patches", "at the patches (dB)": camera.held_out.psnr(truth)}]


def _row(method: str, apply: Blind, camera: Study, clean: Frames) -> dict[str, str | float]:
    """Measure whole held-out frames, and the parts of them that move, which no clean patch shows."""
    chosen = sorted({place.frame for place in camera.held_out.places})
    results = {index: apply(camera.frames.pixels[index])[..., :1] for index in chosen}
    errors = np.stack([np.square(results[i].astype(np.float64) - clean.pixels[i]) for i in chosen])
    moving = np.stack([_moving(clean, i) for i in chosen])
    patches = np.stack([place.cut(results[place.frame]) for place in camera.held_out.places])
    apart = patches.astype(np.float64) - _patches(clean, camera.held_out.places)
    figures = {"whole frames": errors, "what moves": errors[moving], "at the patches": np.square(apart)}
    return {"": method} | {f"{name} (dB)": _psnr(squares) for name, squares in figures.items()}


def _patches(frames: Frames, places: Sequence[Place]) -> Pixels:
    return np.stack([place.cut(frames.pixels[place.frame]) for place in places])


def _moving(clean: Frames, index: int) -> npt.NDArray[np.bool_]:
    clip = [pixels for pixels, name in zip(clean.pixels, clean.clips, strict=True) if name == clean.clips[index]]
    usual = np.median(np.stack(clip[::10]), axis=0)
    return np.asarray(np.abs(clean.pixels[index] - usual) > MOVING)


def _psnr(squares: npt.NDArray[np.float64]) -> float:
    return float(10 * np.log10(255**2 / squares.mean()))


if __name__ == "__main__":
    main()
