"""The OpenAPI document against the service that wrote it: requests that nobody thought of, by schemathesis."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.service_process import served
from tests.model_folders import write_every_sort

CONFIG = Path(__file__).with_name("schemathesis.toml")
TOKEN = "a-token-for-tests"  # noqa: S105


FEW = pytest.param(5, id="few")
MANY = pytest.param(600, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(900)])


@pytest.mark.parametrize("examples", [FEW, MANY])
def test_every_reply_is_as_documented(tmp_path: Path, examples: int) -> None:
    models = write_every_sort(tmp_path / "models")
    with served(models, device="cpu", token=TOKEN) as service:
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
            "--config-file", str(CONFIG), "run", f"{service.client.base_url}/openapi.json",
            "--header", f"Authorization: Bearer {TOKEN}",
            "--checks", "all", "--max-examples", str(examples), "--seed", "0", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert service.client.get("/healthz").status_code == 200
        statuses = [line.get("status") for line in service.stop()]
        assert 500 not in statuses
