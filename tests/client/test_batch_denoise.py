"""`denoise`: the same paths, formats and times in another folder."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import ImageCms
from PIL.PngImagePlugin import PngInfo
from pyarrow import parquet

from client.batch_score import (
    WITH_METADATA,
    DenoiseRow,
    columns,
    pixels_of,
    with_jpeg_metadata,
    with_webp_metadata,
)
from runtime.images import read
from tests.client.conftest import Client
from tests.client.fake_service import NOISE_LEVEL, PILLOW_FORMATS, Reply, problem

ORIENTATION, CAMERA, EXPOSURE, EXPOSURE_IFD = 0x0112, 0x0110, 0x829A, 0x8769
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><title>door 3</title></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
JOURNAL = ".denoise.journal"
NAMES = ("cam1/000.jpg", "cam1/001.png", "cam2/000.jpg", "cam2/deep/000.webp", "cam2/deep/001.BMP")


def picture(noise: float, seed: int = 0) -> PIL.Image.Image:
    """Give a grey ramp, 32 wide and 24 high, with Gaussian noise of this sigma."""
    ramp = np.tile(np.linspace(60, 200, 32), (24, 1))
    noisy = ramp + np.random.default_rng(seed).normal(0, noise, ramp.shape)
    return PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert("RGB")


def save_pictures(folder: Path, noise: float) -> Path:
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(noise, seed=number).save(folder / name, quality=95)
        os.utime(folder / name, ns=(10**18, 10**18 + number))
    return folder


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "noisy", noise=20)


def files_in(folder: Path) -> set[str]:
    """Give all that is there but the journal."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return files - {JOURNAL}


def test_names_formats_and_times_are_kept(client: Client, noisy: Path) -> None:
    out = client.folder / "clean"
    result = client.run("denoise", noisy, "--out", out, "--sigma", "20", "--strength", "0.5", "--model", "street")
    assert result.code == 0
    assert result.output == f"5 denoised, 0 failed, 0 done before; mean noise level 12.50 of 255: {out}\n"
    assert files_in(out) == set(NAMES)
    for request in client.service.posts:
        assert request.path == "/v1/denoise"
        assert request.query == {"model": "street", "sigma": "20.0", "strength": "0.5"}
    for name in NAMES:
        assert (out / name).stat().st_mtime_ns == (noisy / name).stat().st_mtime_ns
        with PIL.Image.open(out / name) as image:
            assert image.format == PILLOW_FORMATS[f"image/{Path(name).suffix[1:].lower()}".replace("jpg", "jpeg")]


def test_what_is_there_is_skipped_unless_restarted(client: Client, noisy: Path) -> None:
    out = client.folder / "clean"
    assert client.run("denoise", noisy, "--out", out).code == 0
    (out / NAMES[1]).unlink()
    client.service.posts.clear()
    assert "1 denoised, 0 failed, 4 done before" in client.run("denoise", noisy, "--out", out).output
    assert [request.body for request in client.service.posts] == [(noisy / NAMES[1]).read_bytes()]
    assert "5 denoised" in client.run("denoise", noisy, "--out", out, "--restart").output


def test_results_inside_the_source_are_not_denoised_again(client: Client, noisy: Path) -> None:
    for _ in range(2):
        assert client.run("denoise", noisy, "--out", noisy / "clean").code == 0
    assert len(client.service.posts) == len(NAMES)
    result = client.run("denoise", noisy, "--out", noisy)
    assert result.code == 2
    assert "give a folder of its own" in result.errors


def test_the_gain_against_a_reference_is_measured(client: Client, noisy: Path) -> None:
    truth = save_pictures(client.folder / "truth", noise=0)
    (truth / NAMES[0]).unlink()
    picture(0).resize((16, 12)).save(truth / NAMES[1])
    (truth / NAMES[2]).write_bytes(b"no image")
    arguments = ("denoise", noisy, "--out", client.folder / "clean", "--reference", truth)
    result = client.run(*arguments)
    assert result.code == 0
    lines = result.output.splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == sorted(NAMES[3:])
    gains = [float(line.split()[-2]) for line in lines[:-1]]
    assert all(3 < gain < 20 for gain in gains)  # dB; a blur removes most of the noise of a ramp
    assert f"mean PSNR gain {sum(gains) / 2:+.1f}" in lines[-1]
    assert "over 2 of 5 images" in lines[-1]
    missing, sized, damaged = result.errors.splitlines()
    assert missing == f"not compared: {NAMES[0]}: no reference"
    assert sized == f"not compared: {NAMES[1]}: the reference is 16 x 12 pixels, not 32 x 24"
    assert damaged.startswith(f"not compared: {NAMES[2]}: cannot be read: ")
    assert client.run(*arguments).output.splitlines()[:-1] == lines[:-1]


def test_the_psnr_is_that_of_the_pixels(client: Client, noisy: Path) -> None:
    truth, out, report = (client.folder / name for name in ("truth", "clean", "report.jsonl"))
    save_pictures(truth, noise=0)
    assert client.run("denoise", noisy, "--out", out, "--reference", truth, "--report", report).code == 0
    row = next(row for row in read_report(report) if row["path"] == NAMES[1])
    for folder, name in ((noisy, "psnr_noisy"), (out, "psnr_denoised")):
        frames = [np.asarray(PIL.Image.open(each / NAMES[1]), dtype=float) for each in (folder, truth)]
        assert row[name] == pytest.approx(10 * np.log10(255**2 / np.square(frames[0] - frames[1]).mean()))
    assert row["gain"] == pytest.approx(row["psnr_denoised"] - row["psnr_noisy"])


def test_of_16_bits_the_high_byte_is_compared(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 2**16, (8, 9), np.uint16)
    PIL.Image.fromarray(samples).save(tmp_path / "deep.png")
    assert (pixels_of(tmp_path / "deep.png") == (samples >> 8)[..., None]).all()


@pytest.mark.parametrize("form", ["RGBA", "LA", "P", "I;16"])
def test_transparent_pixels_are_compared_as_the_service_sees_them(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(0)
    layers = rng.integers(0, 256, (8, 9, 4 if form == "RGBA" else 2), np.uint8)
    options: dict[str, Any] = {}
    if form == "P":
        image, options = picture(20).convert("P"), {"transparency": rng.bytes(200)}
    elif form == "I;16":
        image, options = PIL.Image.fromarray(layers[..., 0].astype(np.uint16) * 257), {"transparency": 257 * 9}
        image.putpixel((0, 0), 257 * 9)
    else:
        image = PIL.Image.fromarray(layers)
    image.save(tmp_path / "a.png", **options)
    assert np.array_equal(pixels_of(tmp_path / "a.png"), read(tmp_path / "a.png", channels=3).pixels)


def read_report(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".csv": lambda path: list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())),
    ".jsonl": read_report,
    ".parquet": lambda path: list(parquet.read_table(path).to_pylist()),
}


@pytest.mark.parametrize("suffix", READERS)
def test_the_report_has_a_row_an_image(client: Client, noisy: Path, suffix: str) -> None:
    bad = (noisy / NAMES[0]).read_bytes()
    client.service.fault = lambda request: problem(413, "too many pixels") if request.body == bad else None
    report = client.folder / f"report{suffix}"
    assert client.run("denoise", noisy, "--out", client.folder / "clean", "--report", report).code == 1
    rows = READERS[suffix](report)
    assert [row["path"] for row in rows] == list(NAMES)
    assert all(list(row) == columns(DenoiseRow) for row in rows)
    assert rows[0]["error"] == "too many pixels (HTTP 413)"
    assert not rows[0]["noise_level"]
    assert {(row["model"], float(row["noise_level"])) for row in rows[1:]} == {("standard", NOISE_LEVEL)}


def test_an_interrupted_run_loses_no_noise_level(client: Client, noisy: Path) -> None:
    out, report = client.folder / "clean", client.folder / "report.jsonl"
    last = (noisy / NAMES[-1]).read_bytes()
    client.service.fault = lambda request: problem(401, "no more") if request.body == last else None
    arguments = ("denoise", noisy, "--out", out, "--report", report)
    assert client.run(*arguments, "--concurrency", "1").code == 2
    assert not report.exists()
    client.service.fault = lambda _: None
    assert "1 denoised, 0 failed, 4 done before" in client.run(*arguments).output
    assert {row["noise_level"] for row in read_report(report)} == {NOISE_LEVEL}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ("--sigma 7", "sigma None, not 7.0"),
        ("--strength 2", "strength None, not 2.0"),
        ("--model street", "model None, not 'street'"),
        ("--root .", "root "),
    ],
)
def test_results_of_other_settings_are_not_mixed(
    client: Client, noisy: Path, arguments: str, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(client.folder)
    assert client.run("denoise", noisy, "--out", "clean").code == 0
    client.service.posts.clear()
    other = client.run("denoise", noisy, "--out", "clean", *arguments.split())
    assert other.code == 2
    assert f"was begun with {changed}" in other.errors
    assert not client.service.posts
    assert "5 denoised" in client.run("denoise", noisy, "--out", "clean", *arguments.split(), "--restart").output


def test_an_interrupted_restart_does_not_take_older_results_for_its_own(client: Client, noisy: Path) -> None:
    arguments = ("denoise", noisy, "--out", client.folder / "clean")
    assert client.run(*arguments).code == 0
    last = (noisy / NAMES[-1]).read_bytes()
    client.service.fault = lambda request: problem(401, "no more") if request.body == last else None
    again = (*arguments, "--sigma", "7")
    assert client.run(*again, "--restart", "--concurrency", "1").code == 2
    client.service.fault = lambda _: None
    assert "1 denoised, 0 failed, 4 done before" in client.run(*again).output


def test_files_that_are_not_of_this_program_are_not_replaced(client: Client, noisy: Path) -> None:
    truth = save_pictures(client.folder / "truth", noise=0)
    before = (truth / NAMES[0]).read_bytes()
    result = client.run("denoise", noisy, "--out", truth)
    assert result.code == 2
    assert f"{truth / NAMES[0]} exists but not its journal" in result.errors
    assert not client.service.posts
    assert (truth / NAMES[0]).read_bytes() == before


def test_an_image_of_another_model_is_not_written(client: Client, noisy: Path) -> None:
    out = client.folder / "clean"
    assert client.run("denoise", noisy, "--out", out).code == 0
    (out / NAMES[1]).unlink()
    reply = Reply(200, (noisy / NAMES[1]).read_bytes(), {"Content-Type": "image/png", "X-Model": "other"})
    client.service.fault = lambda request: reply if request.method == "POST" else None
    result = client.run("denoise", noisy, "--out", out)
    assert result.code == 2
    assert "the model on the server has changed (standard before, other now)" in result.errors
    assert not (out / NAMES[1]).exists()


def test_a_report_in_an_unknown_format_is_refused_before_anything_is_sent(client: Client, noisy: Path) -> None:
    result = client.run("denoise", noisy, "--out", client.folder / "clean", "--report", client.folder / "report.xlsx")
    assert result.code == 2
    assert "the suffix must be one of .jsonl, .csv, .parquet" in result.errors
    assert not client.service.posts


def test_a_reference_of_other_images_is_refused(client: Client, noisy: Path) -> None:
    result = client.run("denoise", noisy, "--out", client.folder / "clean", "--reference", client.frames / "cam1")
    assert result.code == 2
    assert "has none of the paths" in result.errors
    assert not client.service.posts


def test_images_that_fail_are_named_and_leave_no_file(client: Client, noisy: Path) -> None:
    bad, other = (noisy / NAMES[0]).read_bytes(), (noisy / NAMES[1]).read_bytes()
    faults = {bad: problem(413, "too many pixels"), other: Reply(200, b"GIF", {"Content-Type": "image/gif"})}
    client.service.fault = lambda request: faults.get(request.body)
    result = client.run("denoise", noisy, "--out", client.folder / "clean")
    assert result.code == 1
    assert result.errors.splitlines() == [
        f"failed: {NAMES[0]}: too many pixels (HTTP 413)",
        f"failed: {NAMES[1]}: the reply is image/gif, not image/png",
    ]
    assert files_in(client.folder / "clean") == set(NAMES[2:])


def tagged(image: PIL.Image.Image, form: str, orientation: int | None) -> bytes:
    """Give the image as a file, with what a camera says of it, or without."""
    exif, text, options = PIL.Image.Exif(), PngInfo(), dict[str, Any]()
    if orientation:
        exif[CAMERA], exif[ORIENTATION] = "north gate", orientation
        exif.get_ifd(EXPOSURE_IFD)[EXPOSURE] = 0.04
        text.add_text("Comment", "door 3")
        if form == "PNG":
            text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"icc_profile": PROFILE, "comment": "door 3", "pnginfo": text, "dpi": (300, 300), "xmp": XMP}
    file = io.BytesIO()
    image.save(file, form, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_metadata_is_kept_and_the_image_not_turned_twice(client: Client, name: str) -> None:
    folder, out = client.folder / "turned", client.folder / "clean"
    folder.mkdir()
    form = PILLOW_FORMATS[f"image/{Path(name).suffix[1:]}".replace("jpg", "jpeg")]
    (folder / name).write_bytes(tagged(picture(0), form, orientation=6))
    assert client.run("denoise", folder, "--out", out).code == 0
    with PIL.Image.open(out / name) as image:
        exif = image.getexif()
        assert (image.format, image.size) == (form, (24, 32))  # the service has turned the pixels
        assert (exif[CAMERA], exif[ORIENTATION]) == ("north gate", 1)
        assert exif.get_ifd(EXPOSURE_IFD)[EXPOSURE] == pytest.approx(0.04)
        assert (image.info["icc_profile"], image.info["xmp"]) == (PROFILE, XMP)
        if form != "WEBP":  # it has no place for it
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        comment = image.info.get("comment", image.info.get("Comment"))
        assert comment == {"JPEG": b"door 3", "PNG": "door 3", "WEBP": None}[form]
        image.load()
        plain = PIL.Image.open(io.BytesIO(pixels_alone(client, out / name))).convert("RGB")
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(plain))


def pixels_alone(client: Client, path: Path) -> bytes:
    """Give the reply to the request that the file was made of."""
    return client.service.answer(client.service.posts[0]).body if path.exists() else b""


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_metadata_that_is_missing_or_broken_changes_nothing(form: str) -> None:
    restore = WITH_METADATA[f"image/{form.lower()}"]
    plain, full = (tagged(picture(0), form, orientation) for orientation in (None, 3))
    assert restore(plain, plain) == plain
    assert restore(full, full) == full  # the service has kept it already
    for end in range(len(full)):
        with PIL.Image.open(io.BytesIO(restore(plain, full[:end]))) as image:
            image.load()
            assert image.getexif().get(ORIENTATION, 1) == 1


def test_a_lossless_webp_stays_so_with_its_metadata() -> None:
    full, plain = io.BytesIO(), io.BytesIO()
    picture(20).save(full, "WEBP", lossless=True, xmp=XMP, icc_profile=PROFILE)
    picture(0).resize((33, 25)).save(plain, "WEBP", lossless=True)
    with PIL.Image.open(io.BytesIO(with_webp_metadata(plain.getvalue(), full.getvalue()))) as image:
        assert (image.info["icc_profile"], image.info["xmp"], image.size) == (PROFILE, XMP, (33, 25))
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(picture(0).resize((33, 25))))


def test_long_xmp_is_kept_whole() -> None:
    """What does not fit into one segment goes on in others, of another name."""
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 100
    segment = b"\xff\xe1" + (2 + len(extension)).to_bytes(2) + extension
    plain = tagged(picture(0), "JPEG", None)
    source = plain[:2] + segment + plain[2:]
    assert with_jpeg_metadata(plain, source).count(segment) == 1


def test_a_profile_of_inks_is_not_for_rgb() -> None:
    file = io.BytesIO()
    profile = PROFILE[:16] + b"CMYK" + PROFILE[20:]
    picture(0).convert("CMYK").save(file, "JPEG", icc_profile=profile)
    plain = tagged(picture(0), "JPEG", None)
    assert with_jpeg_metadata(plain, file.getvalue()) == plain
