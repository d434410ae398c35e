"""What a 4K frame costs a service in memory, with each shipped denoiser: minutes on a busy machine, so --slow."""

from pathlib import Path

import pytest

from runtime.images import ImageFormat, encode
from runtime.model import Model
from tests.end_to_end.service_process import JPEG, served
from tests.models.conftest import MODELS
from tests.models.scenes import drawn, tiled, with_noise

LIMIT_MB = 1500


def peak_mb(process_id: int) -> float:
    """Return the most memory that a process has ever had, as Linux counts it."""
    lines = Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_4k_frame_takes_less_than_a_gigabyte_and_a_half(denoiser: Model) -> None:
    frame = encode(with_noise(tiled(drawn("dead_leaves"), 2160, 3840), 15).frame, ImageFormat.JPEG)
    with served(MODELS, workers=2) as service:
        name = denoiser.manifest.name
        reply = service.client.post(f"/v1/denoise?model={name}", content=frame, headers=JPEG, timeout=1700)
        assert reply.status_code == 200
        assert peak_mb(service.process.pid) < LIMIT_MB
