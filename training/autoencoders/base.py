"""What every autoencoder is: encode, decode, a loss that knows the kind; and the register of the kinds."""

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

from pydantic import Field
from torch import Tensor, nn

from runtime.manifest import Frozen, Noise, Task

Code = TypeVar("Code")
"""What encode returns: a Tensor [B, latent_dim], the feature pyramid of a U-Net, a grid of indices."""


@dataclass(frozen=True)
class FrameShape:
    """The geometry of the frames; height and width are None for a model of any frame size."""

    channels: int
    height: int | None = None
    width: int | None = None

    @property
    def fixed(self) -> tuple[int, int, int]:
        """Return (channels, height, width); raise ValueError where the kind needs a size and none was given."""
        if self.height is None or self.width is None:
            raise ValueError("this kind needs frames of one size: set data.height and data.width")
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class Losses:
    """`total` is minimised; `parts` are its named terms, for the log."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class AutoencoderConfig(Frozen):
    """What a recipe says under `autoencoder:`; a kind adds its own fields."""

    kind: str = Field(description="one of `python -m training kinds`")


class Autoencoder(nn.Module, ABC, Generic[Code]):
    """An encoder, a decoder and a loss. Frames are float [B, C, H, W] in 0..1."""

    Config: ClassVar[type[AutoencoderConfig]]
    tasks: ClassVar[frozenset[Task]]

    def __init__(self, shape: FrameShape) -> None:
        super().__init__()
        self.shape = shape

    @classmethod
    def suggest(cls, steps: int | None = None) -> AutoencoderConfig:  # noqa: ARG003 - for kinds that override it
        """Return settings for small frames of one camera, where nobody has chosen any: the defaults, for most kinds.

        What a kind learns apart from its training takes no more than so many `steps`, where that is wished.
        Raises ValidationError where a kind without defaults suggests none.
        """
        return cls.Config.model_validate({})

    @property
    def latent_dim(self) -> int | None:
        """How many numbers a frame is encoded to, or a sample made from; None where neither is done."""
        return None

    @property
    def licence(self) -> str | None:
        """What weights that were not learnt here ask for, or None where there are none."""
        return None

    @abstractmethod
    def encode(self, frames: Tensor) -> Code:
        """Return the code of the frames."""

    @abstractmethod
    def decode(self, code: Code) -> Tensor:
        """Return frames [B, C, H, W] in 0..1 from a code."""

    @abstractmethod
    def loss(self, frames: Tensor) -> Losses:
        """Return what training minimises; penalties and corruption live here."""

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Return decode(encode(frames))."""
        return self.decode(self.encode(frames))

    def sample(self, latent: Tensor) -> Tensor:
        """Return frames [B, C, H, W] in 0..1 made from latents [B, latent_dim] ~ N(0, I); most kinds decode them."""
        return self.decode(cast("Code", latent))

    def anomaly_map(self, code: Code, error: Tensor) -> Tensor:  # noqa: ARG002 - for the kinds
        """Return a map [B, H, W], the larger the less normal: `error`, that of the pixels, or one of the kind's own."""
        return error

    def pretrain(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Set the weights before the training proper; most kinds do nothing. `batches()` yields float frames."""

    def measure(self, frames: Tensor) -> dict[tuple[str, str], float]:  # noqa: ARG002 - for the kinds
        """Return figures that only this kind can tell of itself, by (name, unit); measured at export."""
        return {}


class Denoiser(Autoencoder[Code]):
    """An autoencoder that removes noise of a given level and can tell the level by itself."""

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """How many pixels to each side an output pixel looks at, at the most."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Frames must be a multiple of this many pixels high and wide."""

    @property
    @abstractmethod
    def noise(self) -> Noise:
        """What noise it was trained for."""

    @abstractmethod
    def denoise(self, frames: Tensor, level: Tensor) -> Tensor:
        """Return the clean frames; `level` is [B] in 0..1. Height and width are multiples of `stride`."""

    @abstractmethod
    def estimate_noise_level(self, frames: Tensor) -> Tensor:
        """Return [B], the noise level (training.noise.noise_level) in 0..1, judged from the frames alone."""


class Judgement(NamedTuple):
    """What a clip's last frame looks like to an autoencoder of clips."""

    latent: Tensor
    """[B, latent_dim]."""

    reconstruction: Tensor
    """[B, C, H, W] in 0..1."""

    evidence: Tensor
    """[B, rows, columns], of every block of the last frame against its being normal."""

    score: Tensor
    """[B]."""


class ClipAutoencoder(Autoencoder[Tensor]):
    """An autoencoder that judges a frame by the clip that it ends, and by the optical flow in the clip.

    Its weights are learned from single frames, as those of other kinds. What clips look like that are normal it
    learns afterwards, at export, for that depends on the weights.
    """

    @property
    @abstractmethod
    def time(self) -> int:
        """Frames in a clip."""

    @property
    @abstractmethod
    def warm_up(self) -> int:
        """Frames that are enough for a verdict; before the first of fewer than `time` it is repeated."""

    @property
    @abstractmethod
    def flow_step(self) -> int:
        """Frames that the flow reaches over."""

    @property
    @abstractmethod
    def flow_fields(self) -> int:
        """Fields of flow in a clip, the last one up to its last frame."""

    @abstractmethod
    def learn_normal(self, clips: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """See normal clips: `clips()` yields batches of uint8 frames [B, T, H, W, C] and flow [B, F, H, W, 2]."""

    @abstractmethod
    def judge(self, frames: Tensor, flow: Tensor) -> Judgement:
        """Judge clips, uint8 [B, T, H, W, C], with their flow [B, F, H, W, 2] in pixels a frame.

        Frames come as they are, for most kinds need but a few of a clip, and casting all costs more than a network.
        """


_KINDS: dict[str, type[Autoencoder[Any]]] = {}

Kind = TypeVar("Kind", bound=type[Autoencoder[Any]])


def register(kind: Kind) -> Kind:
    """Class decorator: file the kind under the default of its Config's `kind` field."""
    name = kind.Config.model_fields["kind"].default
    if name in _KINDS:
        raise ValueError(f"two autoencoders are registered as {name!r}: {_KINDS[name]} and {kind}")
    _KINDS[name] = kind
    return kind


def kinds() -> dict[str, type[Autoencoder[Any]]]:
    """Return every kind by name; a file in this folder is found by being there."""
    for module in pkgutil.iter_modules(importlib.import_module(__package__).__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    return dict(sorted(_KINDS.items()))


def find_kind(name: str) -> type[Autoencoder[Any]]:
    """Return the kind; raise ValueError naming the nearest one there is."""
    known = kinds()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"no autoencoder kind {name!r}; {hint}")
    return known[name]


def build(config: AutoencoderConfig, shape: FrameShape) -> Autoencoder[Any]:
    """Make an untrained autoencoder."""
    constructor: Callable[[AutoencoderConfig, FrameShape], Autoencoder[Any]] = find_kind(config.kind)
    return constructor(config, shape)
