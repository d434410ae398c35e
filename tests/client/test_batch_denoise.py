"""`denoise`: the same paths, formats and times in another folder."""

import io
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from client.batch_score import exif_segment, with_exif
from tests.client.conftest import Client
from tests.client.fake_service import PILLOW_FORMATS, Reply, problem

ORIENTATION, CAMERA, EXPOSURE, EXPOSURE_IFD = 0x0112, 0x0110, 0x829A, 0x8769
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
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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
    arguments = ("denoise", noisy, "--out", client.folder / "clean", "--reference", truth)
    output = client.run(*arguments).output
    assert "over 3 of 5 images" in output
    gain = float(output.partition("mean PSNR gain ")[2].split()[0])
    assert 3 < gain < 20  # dB; a blur removes most of the noise of a ramp
    assert output.partition("mean PSNR")[2] == client.run(*arguments).output.partition("mean PSNR")[2]


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


def jpeg(image: PIL.Image.Image, orientation: int | None) -> bytes:
    exif = PIL.Image.Exif()
    if orientation:
        exif[CAMERA], exif[ORIENTATION] = "north gate", orientation
        exif.get_ifd(EXPOSURE_IFD)[EXPOSURE] = 0.04
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_exif_data_is_kept_and_the_image_not_turned_twice(client: Client) -> None:
    folder, out = client.folder / "turned", client.folder / "clean"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(picture(0), orientation=6))
    assert client.run("denoise", folder, "--out", out).code == 0
    with PIL.Image.open(out / "a.jpg") as image:
        exif = image.getexif()
        assert image.size == (24, 32)  # the service has turned the pixels
        assert (exif[CAMERA], exif[ORIENTATION]) == ("north gate", 1)
        assert exif.get_ifd(EXPOSURE_IFD)[EXPOSURE] == pytest.approx(0.04)
        image.load()


def test_exif_data_that_is_missing_or_broken_changes_nothing() -> None:
    plain, tagged = jpeg(picture(0), orientation=None), jpeg(picture(0), orientation=3)
    assert with_exif(plain, plain) == plain
    assert with_exif(tagged, tagged) == tagged  # the service has kept it already
    segment = exif_segment(tagged)
    for end in range(10, 30):
        head = b"\xff\xd8\xff\xe1" + (end - 2).to_bytes(2) + segment[4:end]
        assert with_exif(plain, head) == plain
    for end in range(len(tagged) - len(plain)):
        assert with_exif(plain, tagged[:end]).endswith(plain[20:])
