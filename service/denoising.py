"""Denoises frames: small ones in one go, large ones in tiles that share the device with other requests."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from runtime.errors import ImageTooLarge, InvalidInput
from runtime.images import Picture, Pixels, resize
from runtime.manifest import Manifest
from runtime.model import Model, Outputs
from runtime.tiles import Tile, tiles
from service.negotiation import Accept
from service.progress import tiles_logged
from service.replies import EncodedImage, as_sent, encode_as_asked, without_colour_noise
from service.state import Service
from service.ticket import Ticket
from service.uploads import UploadedImage
from service.work import Inputs, Stage, Work


class NeedsTiles(Exception):
    """The frame does not fit into one tile: not a failure, but another way to go."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller asks for. `sigma` is the noise level on the 0..255 scale, None to estimate it."""

    sigma: float | None
    strength: float
    accept: Accept


@dataclass(frozen=True, slots=True)
class Noisy:
    """A decoded frame and its noise level; None where the model takes none."""

    picture: Picture
    level: float | None


class Denoiser:
    """A model, and how one request wants it applied."""

    def __init__(self, model: Model, wish: Wish, tile_pixels: int) -> None:
        """Raise InvalidInput if the model cannot do as is wished."""
        _require_possible(model.manifest, wish)
        self.model = model
        self.wish = wish
        self.tile_pixels = tile_pixels
        self.takes_level = _takes_level(model.manifest)

    def read(self, image: UploadedImage) -> Noisy:
        """Decode a frame and tell its noise level."""
        return self._with_level(image.decode(self.model.manifest.input.channels))

    def _with_level(self, picture: Picture) -> Noisy:
        if not self.takes_level:
            return Noisy(picture, None)
        sigma = self.wish.sigma
        return Noisy(picture, self.model.estimate_noise_level(picture.pixels) if sigma is None else sigma)

    def read_small(self, image: UploadedImage) -> Noisy:
        """Do as `read`; raise NeedsTiles if the frame needs tiles."""
        geometry = self.model.manifest.input
        if geometry.height is not None:
            return self.read(image)  # the frame is scaled to the model's size, whatever its own
        try:
            largest = min(self.tile_pixels, image.limits.max_pixels)
            return self._with_level(image.decode_up_to(largest, geometry.channels))
        except ImageTooLarge as error:
            if error.pixels is None:
                raise
            raise NeedsTiles(error.pixels) from None

    def inputs(self, pixels: Pixels, level: float | None) -> Inputs:
        """Return what the model takes. Beyond the noise it was trained for it gets the strongest of that."""
        if level is None:
            return Inputs(pixels)
        noise = self.model.manifest.noise
        wanted = level * self.wish.strength
        return Inputs(pixels, wanted if noise is None else min(wanted, noise.maximum_level))

    def encode(self, noisy: Noisy, pixels: Pixels) -> EncodedImage:
        """Make the reply."""
        picture = noisy.picture
        clean = without_colour_noise(as_sent(pixels, picture), picture.pixels)
        data, media_type = encode_as_asked(clean, self.wish.accept, picture)
        return EncodedImage(data, media_type, {"noise_level": noisy.level})


class DenoisingWhole(Work[EncodedImage]):
    """A frame that fits into one run."""

    wants = frozenset({"reconstruction"})

    def __init__(self, denoiser: Denoiser, image: UploadedImage) -> None:
        super().__init__(denoiser.model)
        self._denoiser = denoiser
        self._image = image
        self._noisy: Noisy | None = None

    def prepare(self) -> Inputs:
        """Decode the frame and tell its noise level."""
        self._noisy = noisy = self._denoiser.read_small(self._image)
        return self._denoiser.inputs(self.model.fit(noisy.picture.pixels), noisy.level)

    def finish(self, outputs: Outputs) -> EncodedImage:
        """Encode the result in the size that was sent."""
        if self._noisy is None or outputs.reconstruction is None:
            raise TypeError("a model with the task denoise has the output reconstruction: its manifest says so")
        height, width = self._noisy.picture.pixels.shape[:2]
        return self._denoiser.encode(self._noisy, resize(outputs.reconstruction, height, width))


class DenoisingTile(Work[None]):
    """A tile of a large frame; the result is written into `target`."""

    wants = frozenset({"reconstruction"})

    def __init__(self, denoiser: Denoiser, noisy: Noisy, tile: Tile, target: Pixels) -> None:
        super().__init__(denoiser.model)
        self._denoiser = denoiser
        self._noisy = noisy
        self._tile = tile
        self._target = target

    def prepare(self) -> Inputs:
        """Cut the tile out."""
        cut = np.ascontiguousarray(self._tile.cut(self._noisy.picture.pixels))
        return self._denoiser.inputs(cut, self._noisy.level)

    def finish(self, outputs: Outputs) -> None:
        """Put the result in its place."""
        if outputs.reconstruction is not None:
            self._tile.paste(outputs.reconstruction, self._target)


async def denoise(service: Service, ticket: Ticket, denoiser: Denoiser, image: UploadedImage) -> EncodedImage:
    """Denoise one image of a request."""
    try:
        return (await ticket.infer(DenoisingWhole(denoiser, image))).value
    except NeedsTiles as needs:
        image.grant()
        async with service.scheduler.pixels.share(needs.pixels):
            return await _denoise_in_tiles(ticket, denoiser, image)


async def _denoise_in_tiles(ticket: Ticket, denoiser: Denoiser, image: UploadedImage) -> EncodedImage:
    """Run the tiles as jobs of their own: all cores work on them, and other requests' frames go in between."""
    noisy = (await ticket.call(Stage.DECODE, partial(denoiser.read, image))).value
    pixels = noisy.picture.pixels
    target = np.empty_like(pixels)
    height, width, _ = pixels.shape
    manifest = denoiser.model.manifest
    cover = tiles(height, width, manifest.input, denoiser.tile_pixels)
    with tiles_logged(manifest.name, height * width, len(cover)) as progress:

        async def run(tile: Tile) -> None:
            await ticket.infer(DenoisingTile(denoiser, noisy, tile, target))
            progress.advance()

        for answer in await ticket.each([partial(run, tile) for tile in cover]):
            if isinstance(answer, Exception):
                raise answer
        return (await ticket.call(Stage.ENCODE, partial(denoiser.encode, noisy, target))).value


def _takes_level(manifest: Manifest) -> bool:
    return "noise_level" in {tensor.name for tensor in manifest.graphs.autoencoder.inputs}


def _require_possible(manifest: Manifest, wish: Wish) -> None:
    if manifest.input.time > 1:
        raise InvalidInput(f"{manifest.name} looks at clips and cannot denoise one frame")
    if _takes_level(manifest):
        if wish.sigma is None and manifest.graphs.noise_estimator is None:
            raise InvalidInput(f"{manifest.name} cannot estimate the noise: give sigma")
    elif wish.sigma is not None or wish.strength != 1:
        raise InvalidInput(f"{manifest.name} finds the noise by itself: give neither sigma nor strength")
