"""What the exported graphs compute, against the same written in plain numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from runtime.images import Pixels
from tests.training.tiny import draw, recipe
from training.autoencoders.base import Denoiser, build
from training.config import ScoreConfig
from training.graph import (
    AutoencoderGraph,
    DenoiserGraph,
    GeneratorGraph,
    NoiseEstimatorGraph,
    cut_to_stride,
    error_map,
    pad_to_stride,
    pool,
    to_levels,
    to_unit,
)

Floats = npt.NDArray[np.floating[Any]]


def windowed(error: Floats, window: int) -> Floats:
    """Average [n, h, w] over the part of each window that lies within the frame."""
    reach = window // 2
    padded = np.pad(error, [(0, 0), (reach, reach), (reach, reach)], constant_values=np.nan)
    views = np.lib.stride_tricks.sliding_window_view(padded, (window, window), axis=(1, 2))
    return np.asarray(np.nanmean(views, axis=(3, 4)))


# -- pixels


def test_pixels_become_unit_floats_with_channels_first() -> None:
    pixels = draw(2, channels=3)
    assert np.allclose(to_unit(torch.from_numpy(pixels)).numpy(), pixels.transpose(0, 3, 1, 2) / 255)


def test_every_level_survives_the_way_there_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(to_levels(to_unit(levels)), levels)


def test_levels_are_clipped_and_rounded() -> None:
    frames = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 1.7]).reshape(1, 1, 1, 4)
    assert to_levels(frames).flatten().tolist() == [0, 0, 1, 255]


# -- scores


@pytest.mark.parametrize("kind", ["squared", "absolute"])
@pytest.mark.parametrize("window", [1, 3, 11, 41])
def test_the_error_map_is_the_mean_over_channels_and_the_window_within_the_frame(kind: str, window: int) -> None:
    rng = np.random.default_rng(0)
    frames, other = rng.random((2, 2, 3, 16, 24))
    apart = (frames - other) ** 2 if kind == "squared" else np.abs(frames - other)
    score = ScoreConfig.model_validate({"error": kind, "window": window})
    found = error_map(torch.from_numpy(frames), torch.from_numpy(other), score)
    assert found.shape == (2, 16, 24)
    assert np.allclose(found.numpy(), windowed(apart.mean(1), window))


def test_an_error_in_the_corner_counts_in_full() -> None:
    frames = torch.zeros(1, 1, 8, 8)
    frames[0, 0, 0, 0] = 1
    found = error_map(frames, torch.zeros_like(frames), ScoreConfig(window=3))[0]
    assert float(found[0, 0]) == pytest.approx(1 / 4)
    assert float(found[1, 1]) == pytest.approx(1 / 9)
    assert float(found[2, 2]) == 0


@pytest.mark.parametrize("share", [1e-6, 0.01, 0.05, 0.5, 1.0])
def test_the_score_is_the_mean_of_the_worst_share(share: float) -> None:
    maps = np.random.default_rng(0).random((3, 10, 20))
    count = max(1, round(share * 200))
    expected = np.sort(maps.reshape(3, -1), axis=1)[:, -count:].mean(1)
    assert np.allclose(pool(torch.from_numpy(maps), share).numpy(), expected)


# -- whole graphs


@pytest.mark.parametrize("channels", [1, 3])
def test_the_autoencoder_graph_puts_it_together(channels: int) -> None:
    chosen = recipe("plain", data={"channels": channels}, score={"window": 5, "top_share": 0.1})
    autoencoder = build(chosen.autoencoder, chosen.shape)
    pixels = draw(3, channels=channels)
    with torch.no_grad():
        graph = AutoencoderGraph(autoencoder, chosen.score)
        found = dict(zip(graph.outputs, graph(torch.from_numpy(pixels)), strict=True))
    weights = {name: value.detach().numpy().astype(np.float64) for name, value in autoencoder.named_parameters()}
    unit = pixels.transpose(0, 3, 1, 2) / 255
    latent = sigmoid(unit.reshape(3, -1) @ weights["encoder.weight"].T + weights["encoder.bias"])
    reconstruction = sigmoid(latent @ weights["decoder.weight"].T + weights["decoder.bias"]).reshape(unit.shape)
    anomaly_map = windowed(((unit - reconstruction) ** 2).mean(1), 5)
    worst = np.sort(anomaly_map.reshape(3, -1), axis=1)[:, -round(0.1 * 16 * 24) :]
    assert np.allclose(found["latent"], latent, atol=1e-5)
    assert np.abs(found["reconstruction"].numpy().astype(int) - as_levels(reconstruction)).max() <= 1
    assert np.allclose(found["anomaly_map"], anomaly_map, atol=1e-5)
    assert np.allclose(found["anomaly_score"], worst.mean(1), atol=1e-5)


def sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)))


def as_levels(unit: Floats) -> Pixels:
    return np.asarray(np.rint(unit.clip(0, 1) * 255), np.uint8).transpose(0, 2, 3, 1)


def test_without_a_score_section_there_is_no_score() -> None:
    chosen = recipe("plain")
    graph = AutoencoderGraph(build(chosen.autoencoder, chosen.shape), chosen.score)
    assert graph.outputs == ("reconstruction", "latent")
    assert len(graph(torch.from_numpy(draw(1)))) == 2


def test_the_generator_graph_decodes() -> None:
    chosen = recipe("variational")
    autoencoder = build(chosen.autoencoder, chosen.shape).eval()
    latent = torch.randn(5, 4)
    with torch.no_grad():
        (samples,) = GeneratorGraph(autoencoder)(latent)
        assert np.array_equal(samples, as_levels(autoencoder.decode(latent).numpy()))
    assert samples.dtype == torch.uint8
    assert samples.shape == (5, 16, 24, 1)


# -- any frame size


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 8), (8, 8), (9, 17)])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_padding_mirrors_the_frame_as_often_as_needed(size: tuple[int, int], stride: int) -> None:
    frames = torch.rand(2, 3, *size)
    found = pad_to_stride(frames, stride)
    extra = [(-length) % stride for length in size]
    expected = np.pad(frames.numpy(), [(0, 0), (0, 0), (0, extra[0]), (0, extra[1])], mode="symmetric")
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize(("size", "kept"), [((1, 9), (4, 8)), ((16, 16), (16, 16)), ((19, 31), (16, 28))])
def test_cutting_drops_what_is_beyond_the_stride_and_pads_only_what_is_smaller(
    size: tuple[int, int], kept: tuple[int, int]
) -> None:
    frames = torch.rand(2, 3, *size)
    found = cut_to_stride(frames, 4)
    assert found.shape == (2, 3, *kept)
    height, width = (min(pair) for pair in zip(size, kept, strict=True))
    assert torch.equal(found[:, :, :height, :width], frames[:, :, :height, :width])
    assert torch.equal(found[:, :, height:], found[:, :, height - 1 : height].expand_as(found[:, :, height:]))


def denoiser() -> Denoiser[Any]:
    chosen = recipe("denoising")
    found = build(chosen.autoencoder, chosen.shape).eval()
    assert isinstance(found, Denoiser)
    for parameter in found.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 24), (17, 25)])
def test_the_denoiser_graph_pads_denoises_and_cuts(size: tuple[int, int]) -> None:
    chosen, pixels = denoiser(), draw(2, height=17, width=25)[:, : size[0], : size[1]]
    levels = torch.tensor([10.0, 40.0])
    with torch.no_grad():
        (found,) = DenoiserGraph(chosen)(torch.from_numpy(pixels), levels)
        padded = pad_to_stride(to_unit(torch.from_numpy(pixels)), chosen.stride)
        expected = chosen.denoise(padded, levels / 255)[:, :, : size[0], : size[1]]
    assert np.array_equal(found, as_levels(expected.numpy()))
    assert found.shape == pixels.shape


def test_level_0_gives_the_frames_back_bit_by_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 13, 7, 1), np.uint8)
    with torch.no_grad():
        (found,) = DenoiserGraph(denoiser())(torch.from_numpy(pixels), torch.zeros(2))
    assert np.array_equal(found, pixels)


def test_the_noise_estimate_is_on_the_scale_of_files() -> None:
    chosen, pixels = denoiser(), draw(2)
    with torch.no_grad():
        (found,) = NoiseEstimatorGraph(chosen)(torch.from_numpy(pixels))
        assert torch.allclose(found, chosen.estimate_noise_level(to_unit(torch.from_numpy(pixels))) * 255)
    assert found.shape == (2,)
