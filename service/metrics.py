"""What Prometheus sees. Every app has its own registry: nothing is global."""

from collections.abc import Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runtime.devices import Device
from runtime.model import Model
from service.work import Stage, Timing

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Scores are raw, so their scale is the model's own: three buckets a decade over eight decades.
SCORES = tuple(step * 10.0**exponent for exponent in range(-6, 3) for step in (1, 2, 5))


class Metrics:
    """The instruments, with the labels that are used on every request looked up once."""

    def __init__(self, device: Device) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "clearwatch_requests", "Requests answered.", ["route", "method", "code"], registry=registry
        )
        self._latency = Histogram(
            "clearwatch_request_duration_seconds",
            "From the first byte of a request to the last of its reply.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        stages = Histogram(
            "clearwatch_stage_duration_seconds",
            "Time a job spends in each stage; inference is that of its whole batch.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in Stage}
        self._batch = Histogram(
            "clearwatch_batch_frames", "Frames that ran together.", buckets=BATCHES, registry=registry
        )
        self._refused = Counter(
            "clearwatch_refused_requests",
            "Requests not served: overloaded, shutting_down, deadline, client_left or hung.",
            ["reason"],
            registry=registry,
        )
        for reason in ("overloaded", "shutting_down", "deadline", "client_left", "hung"):
            self._refused.labels(reason)  # a series that starts at 0 can be alerted on
        self._scores = Histogram(
            "clearwatch_anomaly_score", "Raw anomaly scores.", ["model"], buckets=SCORES, registry=registry
        )
        self._verdicts = Counter("clearwatch_verdicts", "Frames by verdict.", ["model", "state"], registry=registry)
        self.queue_depth = Gauge("clearwatch_queue_jobs", "Jobs waiting for a worker.", registry=registry)
        self.in_flight = Gauge("clearwatch_accepted_requests", "Requests being served.", registry=registry)
        self.cameras = Gauge("clearwatch_cameras", "Cameras whose frames are kept.", registry=registry)
        self.cameras_forgotten = Counter(
            "clearwatch_cameras_forgotten", "Cameras forgotten to make room for others.", registry=registry
        )
        self._calibrated = Counter(
            "clearwatch_calibrations", "Calibrations made by request.", ["model"], registry=registry
        )
        self._models = Gauge(
            "clearwatch_model_info",
            "1 for each model that is served.",
            ["name", "version", "sha256", "device"],
            registry=registry,
        )
        self.failed = Gauge("clearwatch_failed_models", "Models that did not open, or failed since.", registry=registry)
        info = Gauge(
            "clearwatch_device_info", "1 for the device in use.", ["device", "target", "note"], registry=registry
        )
        info.labels(device.name, device.target, device.note).set(1)
        # Bounded: routes are templates, and methods, codes and models are few.
        self._replies = cache(self._find_replies)
        self._scored = cache(self._find_scored)

    def replied(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count a reply."""
        counter, latency = self._replies(route, method, code)
        counter.inc()
        latency.observe(seconds)

    def _find_replies(self, route: str, method: str, code: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(route, method, str(code)), self._latency.labels(route)

    def refused(self, reason: str) -> None:
        """Count a request that was not served."""
        self._refused.labels(reason).inc()

    def observe(self, stage: Stage, timing: Timing) -> None:
        """Record how long a job spent in a stage."""
        self._stages[stage].observe(getattr(timing, stage))

    def ran(self, frames: int) -> None:
        """Record a run on the device."""
        self._batch.observe(frames)

    def scored(self, model: str, state: str, score: float | None) -> None:
        """Record a verdict."""
        counter, scores = self._scored(model, state)
        counter.inc()
        if score is not None:
            scores.observe(score)

    def _find_scored(self, model: str, state: str) -> tuple[Counter, Histogram]:
        return self._verdicts.labels(model, state), self._scores.labels(model)

    def calibrated(self, model: str) -> None:
        """Count a calibration."""
        self._calibrated.labels(model).inc()

    def serves(self, models: Iterable[Model]) -> None:
        """Say which models are served from now on."""
        self._models.clear()
        for model in models:
            manifest = model.manifest
            self._models.labels(manifest.name, manifest.version, manifest.sha256, model.device.name).set(1)

    def render(self) -> bytes:
        """Return the text format."""
        return generate_latest(self.registry)
