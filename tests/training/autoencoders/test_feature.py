"""The feature-space autoencoder on random frozen features: scale, place of a defect, grey frames, too few frames."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.tiny import recipe
from training.autoencoders.base import build
from training.autoencoders.feature import Feature
from training.efficientnet import LICENCE
from training.errors import DataError
from training.graph import pool

SIDE = 64


def textures(count: int, seed: int = 0, channels: int = 1) -> Tensor:
    """Return [count, channels, 64, 64]: stripes of one pitch, at any phase, with noise."""
    rng = np.random.default_rng(seed)
    columns = np.arange(SIDE) + rng.uniform(0, 8, (count, 1))
    stripes = 0.5 + 0.2 * np.sin(2 * np.pi * columns / 8)[:, None, None, :]
    frames = stripes + rng.normal(0, 0.02, (count, 1, SIDE, SIDE))
    return torch.from_numpy(frames.clip(0, 1)).float().expand(-1, channels, -1, -1).contiguous()


def made(channels: int = 1) -> Feature:
    torch.manual_seed(0)
    chosen = recipe("feature", data={"channels": channels, "height": SIDE, "width": SIDE})
    autoencoder = build(chosen.autoencoder, chosen.shape)
    assert isinstance(autoencoder, Feature)
    return autoencoder.eval()


def batches(frames: Tensor, passes: int = 1) -> Iterable[Tensor]:
    return [frames[start : start + 8] for _ in range(passes) for start in range(0, len(frames), 8)]


@pytest.fixture(scope="module")
def fitted() -> Feature:
    autoencoder = made()
    autoencoder.pretrain(lambda: batches(textures(96)))
    return autoencoder


def maps(autoencoder: Feature, frames: Tensor) -> Tensor:
    with torch.no_grad():
        return autoencoder.anomaly_map(autoencoder.encode(frames), torch.full((1,), torch.nan))


def test_a_map_is_as_large_as_its_frame(fitted: Feature) -> None:
    assert maps(fitted, textures(3)).shape == (3, SIDE, SIDE)


def test_a_defect_stands_out_where_it_is(fitted: Feature) -> None:
    frames = textures(20, seed=1)
    damaged = frames.clone()
    damaged[:, :, 36:46, 20:30] = 0.5  # the stripes are gone there, the brightness is not
    normal_scores, scores = pool(maps(fitted, frames), 0.01), pool(maps(fitted, damaged), 0.01)
    assert (scores[:, None] > normal_scores).float().mean() > 0.95
    hottest = maps(fitted, damaged).mean(0).flatten().argmax()
    assert abs(int(hottest) // SIDE - 41) < 10
    assert abs(int(hottest) % SIDE - 25) < 10


def test_scores_are_in_spreads_of_normal_frames(fitted: Feature) -> None:
    scores = pool(maps(fitted, textures(60, seed=2)), 0.003)
    assert scores.median().abs() < 3


def test_grey_is_colour_with_equal_channels() -> None:
    grey, colour = made(1), made(3)
    colour.network.load_state_dict(grey.network.state_dict())
    with torch.no_grad():
        for one, other in zip(grey.encode(textures(2)), colour.encode(textures(2, channels=3)), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_frames_that_come_again_change_nothing(fitted: Feature) -> None:
    again = made()
    again.pretrain(lambda: batches(textures(96), passes=2))
    for first, second in zip(fitted.levels, again.levels, strict=True):
        assert torch.allclose(first.mean, second.mean, atol=1e-4)
    finest = fitted.levels[0].usual, again.levels[0].usual  # of the coarsest the shrinkage knows the count
    assert torch.allclose(*finest, rtol=0.02)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="add frames"):
        made().pretrain(lambda: batches(textures(1)))


def test_only_the_decoder_is_trained(fitted: Feature) -> None:
    assert {name for name, weight in fitted.named_parameters() if weight.requires_grad} == {
        "painter.weight",
        "painter.bias",
    }


def test_the_licence_of_the_frozen_weights_is_told_where_there_are_any(fitted: Feature) -> None:
    assert fitted.licence is None
    assert "Apache-2.0" in LICENCE
