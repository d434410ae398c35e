"""What every test shares: where the data sets are, which tests this machine can run, and a clean environment."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import onnxruntime as ort
import pytest

from runtime.devices import Device, DeviceChoice, select_device

# The same examples in every run, so that a red test is the commit's fault. To look for new ones:
# pytest --hypothesis-profile=explore
hypothesis.settings.register_profile("tests", deadline=None, max_examples=50, derandomize=True, database=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("tests")

# What a shell ignores for a job in the background, the processes that tests start and end would ignore too.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", metavar="DIR", default="data", help="the folder with the data sets of docs/data.md")
    parser.addoption("--slow", action="store_true", help="also what takes minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = {}
    folder = _data_folder(config)
    if not folder.is_dir():
        absent["data"] = f"no data folder {folder}; see docs/data.md and pytest --data=DIR"
    if not config.getoption("--slow"):
        absent["slow"] = "takes minutes; see pytest --slow"
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        absent["gpu"] = "this onnxruntime has no CUDA provider"
    for item in items:
        for mark, reason in absent.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def _data_folder(config: pytest.Config) -> Path:
    return Path(str(config.getoption("--data")))


@pytest.fixture(scope="session")
def data(pytestconfig: pytest.Config) -> Path:
    """Give the folder of the data sets; skip the test where there is none."""
    folder = _data_folder(pytestconfig)
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; see docs/data.md and pytest --data=DIR")
    return folder


@pytest.fixture(scope="session")
def data_set(data: Path) -> Callable[[str], Path]:
    """Give a function from the name of a data set to its folder, which skips the test where it is missing."""

    def find(name: str) -> Path:
        folder = data / name
        if not folder.is_dir():
            pytest.skip(f"no data set {name} in {data}; see docs/data.md")
        return folder

    return find


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's own settings, so that they cannot change a result."""
    for name in [name for name in os.environ if name.upper().startswith("CLEARWATCH_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cpu() -> Device:
    """Give the CPU with one worker."""
    return select_device(DeviceChoice.CPU, workers=1)
