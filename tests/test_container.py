"""The container has the rights that the documentation promises: none."""

import re
from pathlib import Path
from typing import Any

import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[1]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Return each stage of the Dockerfile: what it begins with, and its instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif found and word.isupper():
            found[name][1].append((word, rest))
    return found


def service() -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    described: dict[str, Any] = compose["services"]["clearwatch"]
    return described


def test_the_image_runs_without_rights() -> None:
    found = stages()
    for target in ("cpu", "gpu"):
        base, own = found[target]
        instructions = [*found[base][1], *own]
        assert [rest for word, rest in instructions if word == "USER"] == ["clearwatch"]
        made = next(rest for word, rest in instructions if word == "RUN" and "useradd" in rest)
        assert re.search(r"--uid [1-9]\d* .*clearwatch$", made)
        assert "--chown" not in str(own), "what it runs is not its own to change"
        after = instructions[instructions.index(("USER", "clearwatch")) :]
        assert not [rest for word, rest in after if word == "RUN"]


def test_the_image_holds_no_compiler_and_no_torch() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"apt-get|build-essential|\[.*(training|dev).*\]'", text)
    for target in ("cpu", "gpu"):
        copied = [rest for word, rest in stages()[target][1] if word == "COPY"]
        assert copied == [f"--from=build-{target} /opt/clearwatch /opt/clearwatch"]


def test_the_container_has_no_capabilities_and_a_read_only_root() -> None:
    described = service()
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert described["tmpfs"] == ["/tmp"]  # noqa: S108 - its name in the container
    assert "./models:/models:ro" in described["volumes"]
    assert not described.keys() & {"privileged", "cap_add", "user", "network_mode", "pid", "devices"}


def test_the_gpu_overlay_takes_nothing_of_that_back() -> None:
    overlay = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())
    assert overlay["services"]["clearwatch"].keys() == {"image", "build", "environment", "deploy"}


def test_there_is_no_default_token_and_no_open_port() -> None:
    described = service()
    assert described["environment"]["CLEARWATCH_TOKEN"].startswith("${CLEARWATCH_TOKEN:?")
    assert described["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]


def test_docker_waits_longer_than_the_service_takes_to_end() -> None:
    period = service()["stop_grace_period"]
    assert int(period.removesuffix("s")) > Settings().grace_period_s
    assert f"`stop_grace_period: {period}`" in (ROOT / "docs" / "configuration.md").read_text()
