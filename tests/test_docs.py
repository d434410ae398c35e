"""The documentation keeps up with the code: every setting, every endpoint, every failure."""

import re
from pathlib import Path

import pytest

from service.app import create_app
from service.problems import KINDS
from service.settings import Settings, load_settings, variable
from tests.model_folders import write_scorer

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "docs" / "configuration.md"
API = ROOT / "docs" / "api.md"
EXAMPLE = ROOT / ".env.example"
PROMISES = [ROOT / "docs" / "operations.md", ROOT / "docs" / "security.md"]


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    field = Settings.model_fields[name]
    default = "unset" if field.default is None else f"`{shown(field.default)}`"
    row = f"| `{variable(name)}` | {default} | {field.description} |"
    assert row in CONFIGURATION.read_text().splitlines(), f"docs/configuration.md should have the row\n{row}"
    line = f"#{variable(name)}=" if field.default is None else f"{variable(name)}={shown(field.default)}"
    assert f"# {field.description}\n{line}\n" in EXAMPLE.read_text(), f".env.example should have {line}"


@pytest.mark.parametrize("path", [CONFIGURATION, API, EXAMPLE])
def test_no_setting_is_documented_that_does_not_exist(path: Path) -> None:
    known = {variable(name) for name in Settings.model_fields}
    assert set(re.findall(r"CLEARWATCH_[A-Z_]+", path.read_text())) <= known


def test_the_example_file_means_the_defaults() -> None:
    assert load_settings(EXAMPLE) == Settings()


def test_every_endpoint_is_documented(tmp_path: Path) -> None:
    write_scorer(tmp_path / "scorer")
    schema = create_app(Settings(models_dir=tmp_path)).openapi()
    text = API.read_text()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}`" in text, f"docs/api.md says nothing of {method.upper()} {path}"
            for parameter in operation.get("parameters", ()):
                assert f"`{parameter['name']}`" in text, f"docs/api.md says nothing of {parameter['name']} of {path}"


def test_every_failure_is_documented() -> None:
    text = API.read_text()
    for kind in KINDS.values():
        assert f"`{kind.name}`" in text, f"docs/api.md says nothing of {kind.type}"


@pytest.mark.parametrize("path", PROMISES, ids=lambda path: path.stem)
def test_every_promise_names_the_test_that_holds_it(path: Path) -> None:
    rows = path.read_text().partition("held by |\n|---")[2].partition("\n\n")[0].splitlines()[1:]
    assert len(rows) > 10
    for row in rows:
        held_by = row.rpartition(" | ")[2]
        assert "`" in held_by, f"nothing holds this promise: {row}"
        for file, test in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", held_by):
            files = [ROOT / file] if "/" in file else (ROOT / "tests").rglob(file)
            assert any(f"def {test}(" in found.read_text() for found in files if test), f"no {file}::{test} holds {row}"
