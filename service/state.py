"""Everything that one app consists of; there are no globals."""

from dataclasses import dataclass

from runtime.calibrations import FOLDER, Calibrations
from runtime.devices import Device, select_device, usable_cores
from runtime.images import Limits
from service.cameras import Cameras
from service.metrics import Metrics
from service.opening import Opener
from service.scheduler import Capacity, Scheduler
from service.settings import Settings
from service.store import ModelStore
from service.tokens import Keyring
from service.uploads import UploadLimits


@dataclass(frozen=True)
class Service:
    """The parts, wired together."""

    settings: Settings
    keyring: Keyring
    device: Device
    metrics: Metrics
    opener: Opener
    store: ModelStore
    calibrations: Calibrations
    scheduler: Scheduler
    cameras: Cameras
    upload_limits: UploadLimits

    def hangs(self) -> bool:
        """Tell, once it is closed, whether threads go on computing all the same."""
        return self.scheduler.hangs() or self.opener.hangs()

    @classmethod
    def build(cls, settings: Settings) -> "Service":
        """Make the parts and start nothing. Raises DeviceUnavailable or ModelFolderInvalid."""
        device = select_device(settings.device, settings.workers, cpu_fallback=settings.cpu_fallback)
        metrics = Metrics(device)
        capacity = _capacity(settings, device)
        opener = Opener(device, settings.open_limit_s)
        store = ModelStore(settings.models_dir, opener, metrics)
        return cls(
            settings=settings,
            keyring=settings.keyring(),
            device=device,
            metrics=metrics,
            opener=opener,
            store=store,
            calibrations=Calibrations(settings.calibrations_dir or settings.models_dir / FOLDER),
            scheduler=Scheduler(capacity, metrics, store.blame),
            cameras=Cameras(settings.max_cameras, settings.camera_idle_s, settings.kept_scores, metrics),
            upload_limits=UploadLimits(
                Limits(settings.max_image_bytes, settings.max_image_pixels),
                settings.max_batch_images,
                settings.max_request_bytes,
                settings.upload_timeout_s,
            ),
        )


def _capacity(settings: Settings, device: Device) -> Capacity:
    return Capacity(
        # Where frames are gathered into batches, the other cores decode for the few threads on the device.
        threads=device.workers if device.max_batch == 1 else max(device.workers + 1, usable_cores()),
        lanes=device.workers,
        max_batch=device.max_batch,
        requests=settings.queue_capacity,
        deadline_s=settings.deadline_s,
        pixels=settings.max_image_pixels,
        body_bytes=settings.max_held_bytes,
        refusal_delay_s=settings.refusal_delay_s,
        step_limit_s=settings.step_limit_s,
    )
