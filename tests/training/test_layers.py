"""The blocks that several kinds share."""

import pytest
import torch
from torch import nn

from training.layers import (
    ConvolutionalDecoder,
    Dense,
    Unflatten,
    convolutional_encoder,
    rademacher,
    squared_error,
    structural_error,
)


def test_dense_has_no_activation_after_the_last_layer() -> None:
    dense = Dense((6, 5, 4), nn.Tanh)
    assert [type(layer) for layer in dense.children()] == [nn.Linear, nn.Tanh, nn.Linear]
    assert dense(torch.rand(2, 6)).shape == (2, 4)
    assert [type(layer) for layer in Dense((6, 5), nn.Tanh).children()] == [nn.Linear]


def test_unflatten_undoes_flatten() -> None:
    frames = torch.rand(2, 3, 4, 5)
    assert torch.equal(Unflatten((3, 4, 5))(frames.flatten(1)), frames)


@pytest.mark.parametrize("size", [(16, 24), (13, 19), (1, 1), (160, 8)])
@pytest.mark.parametrize("widths", [(4,), (4, 8), (4, 8, 6)])
def test_down_and_up_again_for_any_size(size: tuple[int, int], widths: tuple[int, ...]) -> None:
    shape = (3, *size)
    frames = torch.rand(2, *shape)
    encoder, decoder = convolutional_encoder(shape, widths, 7), ConvolutionalDecoder(shape, widths, 7)
    code = encoder.eval()(frames)
    assert code.shape == (2, 7)
    assert decoder.eval()(code).shape == frames.shape


def test_every_pixel_of_the_frame_reaches_the_code_and_is_reached_by_it() -> None:
    shape = (1, 13, 19)
    encoder, decoder = convolutional_encoder(shape, (4, 8), 5).eval(), ConvolutionalDecoder(shape, (4, 8), 5).eval()
    frames = torch.rand(1, *shape, requires_grad=True)
    (felt,) = torch.autograd.grad(encoder(frames).sum(), frames)
    assert (felt != 0).all()
    code = torch.zeros(2, 5)
    code[1] = 1
    first, second = decoder(code)
    assert (first != second).float().mean() > 0.99


def test_the_squared_error_is_summed_over_pixels_and_averaged_over_frames() -> None:
    frames = torch.zeros(2, 1, 2, 2)
    other = torch.tensor([[[[1.0, 2], [0, 0]]], [[[0, 0], [0, 3]]]])
    assert squared_error(frames, other) == (5 + 9) / 2


def test_random_signs_are_plus_and_minus_one() -> None:
    signs = rademacher(torch.rand(50, 40))
    assert set(signs.flatten().tolist()) == {-1, 1}
    assert abs(signs.mean()) < 0.1
    assert signs.dtype == torch.float32


def test_the_structural_error_sees_lost_texture_more_than_other_light() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = 0.5 + 0.1 * torch.randn(2, 1, 40, 40, generator=generator)
    smooth = torch.full_like(frames, 0.5)
    assert structural_error(frames, frames).abs() < 1e-5
    assert structural_error(frames, smooth) > 2 * structural_error(frames, frames + 0.1) > 0


def test_the_structural_error_takes_frames_below_its_window() -> None:
    assert structural_error(torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 5)) == 0
