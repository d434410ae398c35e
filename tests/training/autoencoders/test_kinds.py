"""What every kind must do, found by itself: a new file under training/autoencoders/ is tested by being there."""

from typing import Any

import pytest
import torch

from runtime.manifest import Task
from tests.training.tiny import HEIGHT, WIDTH, batch, fit, recipe
from training.autoencoders.base import Autoencoder, AutoencoderConfig, Denoiser, FrameShape, build, kinds
from training.config import Recipe

KINDS = sorted(kinds())


def made(kind: str, channels: int = 1) -> Autoencoder[Any]:
    chosen = recipe(kind, data={"channels": channels})
    return build(chosen.autoencoder, chosen.shape)


def data(autoencoder: Autoencoder[Any], count: int = 8) -> torch.Tensor:
    """Return frames as the kind learns them: whole, or crops for one of any size."""
    frames = batch(count, channels=autoencoder.shape.channels)
    return frames[..., :HEIGHT] if isinstance(autoencoder, Denoiser) else frames


def test_the_kinds_of_the_lecture_are_there() -> None:
    assert set(KINDS) >= {"plain", "deep", "convolutional", "contractive", "denoising", "variational"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_names_its_kind_and_describes_its_own_settings(kind: str) -> None:
    config = kinds()[kind].Config
    assert issubclass(config, AutoencoderConfig)
    assert config.model_fields["kind"].default == kind
    assert recipe(kind).autoencoder.kind == kind
    own = config.model_fields.keys() - AutoencoderConfig.model_fields.keys()
    assert all(not config.model_fields[name].is_required() for name in own), "every setting has a default"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_suggests_settings_that_can_be_built(kind: str) -> None:
    suggested = kinds()[kind].suggest()
    assert suggested.kind == kind
    with torch.device("meta"):  # no memory, and no weights that are kept elsewhere
        autoencoder = build(suggested.model_copy(update={"weights": "random"}), FrameShape(1, 64, 96))
    assert isinstance(autoencoder, kinds()[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_come_back_in_their_shape(kind: str, channels: int) -> None:
    autoencoder = made(kind, channels).eval()
    frames = data(autoencoder, 3)
    with torch.no_grad():
        reconstruction = autoencoder.reconstruct(frames)
    assert reconstruction.shape == frames.shape
    assert reconstruction.isfinite().all()
    if not isinstance(autoencoder, Denoiser):  # what it adds to a frame is clipped in the graph
        assert reconstruction.min() >= 0
        assert reconstruction.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_has_the_stated_length(kind: str) -> None:
    autoencoder = made(kind).eval()
    if autoencoder.latent_dim is None:
        assert not autoencoder.tasks & {Task.ENCODE, Task.SAMPLE}
        return
    frames = data(autoencoder, 3)
    with torch.no_grad():
        code = autoencoder.encode(frames)
        assert Task.ENCODE not in autoencoder.tasks or code.shape == (3, autoencoder.latent_dim)
        assert torch.equal(autoencoder.decode(code), autoencoder.reconstruct(frames))


@pytest.mark.parametrize("kind", [name for name in KINDS if Task.SAMPLE in kinds()[name].tasks])
def test_the_same_latents_make_the_same_samples(kind: str) -> None:
    autoencoder = made(kind).eval()
    assert autoencoder.latent_dim is not None
    latents = torch.randn(3, autoencoder.latent_dim)
    with torch.no_grad():
        samples = autoencoder.sample(latents)
        assert samples.shape == (3, 1, HEIGHT, WIDTH)
        assert torch.equal(samples, autoencoder.sample(latents))
        assert not torch.equal(samples, autoencoder.sample(-latents))
    assert samples.min() >= 0
    assert samples.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_tasks_agree_with_what_the_class_can_do(kind: str) -> None:
    autoencoder = made(kind)
    assert autoencoder.tasks
    assert (Task.DENOISE in autoencoder.tasks) == isinstance(autoencoder, Denoiser)
    if Task.ENCODE in autoencoder.tasks or Task.SAMPLE in autoencoder.tasks:
        assert autoencoder.latent_dim is not None


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_gets_a_finite_gradient(kind: str) -> None:
    autoencoder = made(kind)
    # What starts at zero hides the gradient of what comes before it; nothing trained stays there.
    for parameter in autoencoder.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    losses = autoencoder.loss(data(autoencoder))
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert losses.total.isfinite()
    assert all(part.isfinite() and part.ndim == 0 for part in losses.parts.values())
    for name, parameter in autoencoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), f"{name} has no influence on the loss"


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls(kind: str) -> None:
    torch.manual_seed(0)
    autoencoder = made(kind)
    losses = fit(autoencoder, data(autoencoder, 16), 50)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_can_be_validated(kind: str) -> None:
    """The trainer asks for it without gradients, in evaluation mode, and gets the same again for the same draws."""
    autoencoder = made(kind).eval()
    frames = data(autoencoder)
    with torch.no_grad():
        torch.manual_seed(1)
        first = autoencoder.loss(frames).total
        torch.manual_seed(1)
        assert torch.equal(first, autoencoder.loss(frames).total)
    assert all(parameter.grad is None for parameter in autoencoder.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_saved_and_loaded(kind: str) -> None:
    first, second = made(kind), made(kind)
    fit(first, data(first), 3)
    second.load_state_dict(first.state_dict())
    frames = data(first)
    with torch.no_grad():
        assert torch.equal(first.eval().reconstruct(frames), second.eval().reconstruct(frames))


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_does_not_depend_on_its_neighbours_in_the_batch(kind: str) -> None:
    autoencoder = made(kind).eval()
    frames = data(autoencoder, 5)
    with torch.no_grad():
        together = autoencoder.reconstruct(frames)
        alone = torch.cat([autoencoder.reconstruct(frame[None]) for frame in frames])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_sizes_work_too(kind: str) -> None:
    chosen = recipe(kind)
    if issubclass(chosen.kind, Denoiser):
        pytest.skip("its graph pads the frames")
    odd = Recipe.model_validate(
        chosen.model_dump() | {"data": chosen.data.model_copy(update={"height": 13, "width": 19})}
    )
    autoencoder = build(odd.autoencoder, odd.shape).eval()
    frames = batch(2)[:, :, :13, :19]
    with torch.no_grad():
        assert autoencoder.reconstruct(frames).shape == frames.shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_frame_size_says_what_to_set(kind: str) -> None:
    chosen = recipe(kind)
    if issubclass(chosen.kind, Denoiser):
        assert build(chosen.autoencoder, FrameShape(1)).shape.height is None
    else:
        with pytest.raises(ValueError, match=r"set data\.height and data\.width"):
            build(chosen.autoencoder, FrameShape(1, height=HEIGHT))


def test_the_test_frames_are_as_large_as_they_say() -> None:
    assert batch(1).shape == (1, 1, HEIGHT, WIDTH)
