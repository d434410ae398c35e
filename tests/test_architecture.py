"""The arrows between the packages, read from the imports: who may use whom, and where each library lives."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.model_folders import write_denoiser, write_scorer

ROOT = Path(__file__).parents[1]

# Which of our packages each may import besides itself. Nothing may import tests or benchmarks.
ARROWS = {"client": set[str](), "service": {"runtime"}, "training": {"runtime"}, "runtime": set[str]()}
OURS = {*ARROWS, "tests", "benchmarks"}

# Libraries that only one package may know.
HOMES = {
    **dict.fromkeys(["torch", "lightning", "onnx", "onnxscript", "matplotlib", "sklearn", "skimage", "av"], "training"),
    **dict.fromkeys(["fastapi", "starlette", "uvicorn", "prometheus_client", "python_multipart"], "service"),
    "PIL": "runtime",
}

# The client stands alone and takes its bearer token from the environment: on a command line anybody could read it.
READ_THE_ENVIRONMENT = {"service/settings.py", "client/batch_score.py"}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}


@dataclass(frozen=True)
class Import:
    """`file` imports `module`, or a name from it, at `line`."""

    file: Path
    line: int
    module: str

    @property
    def package(self) -> str:
        return self.file.relative_to(ROOT).parts[0]

    @property
    def library(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


@cache
def syntax(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(file: Path, *, types: bool = True) -> Iterator[Import]:
    """Find every import, within functions too; `from a import b` may mean the module a.b."""
    hidden = {
        id(inner) for node in ast.walk(syntax(file)) if for_types_only(node) and not types for inner in ast.walk(node)
    }
    inside = module_of(file).split(".")
    package = inside if file.name == "__init__.py" else inside[:-1]
    for node in ast.walk(syntax(file)):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield Import(file, node.lineno, module)
            yield from (Import(file, node.lineno, f"{module}.{alias.name}") for alias in node.names)


def all_imports() -> list[Import]:
    return [found for package in ARROWS for file in sources(package) for found in imports(file)]


def test_there_is_something_to_look_at() -> None:
    assert all(sources(package) for package in ARROWS)
    assert {found.library for found in all_imports()} >= {"numpy", "torch", "fastapi", "runtime"}


def test_imports_follow_the_arrows() -> None:
    allowed = {package: others | {package} for package, others in ARROWS.items()}
    assert [
        str(found) for found in all_imports() if found.library in OURS and found.library not in allowed[found.package]
    ] == []


def test_libraries_stay_at_home() -> None:
    assert [str(found) for found in all_imports() if HOMES.get(found.library, found.package) != found.package] == []


def reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in ENVIRONMENT and isinstance(node.value, ast.Name) and node.value.id == "os"
    return isinstance(node, ast.ImportFrom) and (
        node.module == "pydantic_settings"
        or (node.module == "os" and not ENVIRONMENT.isdisjoint(alias.name for alias in node.names))
    )


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        file.relative_to(ROOT).as_posix()
        for package in ARROWS
        for file in sources(package)
        if any(map(reads_environment, ast.walk(syntax(file))))
    }
    assert readers <= READ_THE_ENVIRONMENT


@pytest.mark.parametrize("package", ARROWS)
def test_no_module_needs_itself(package: str) -> None:
    """Not even by a detour; a knot that only type checkers see is none."""
    modules = {module_of(file) for file in sources(package)}
    needs = {
        module_of(file): {found.module for found in imports(file, types=False)} & (modules - {module_of(file), package})
        for file in sources(package)
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def run_without(libraries: set[str], code: str, *arguments: Path) -> None:
    """Run code in a fresh interpreter where those libraries seem not to be installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({sorted(libraries)!r}))\n"
    command = [sys.executable, "-c", blocked + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


SERVE = """
import logging
from pathlib import Path
from fastapi.testclient import TestClient
from service.app import create_app
from service.settings import Settings

assert not logging.root.handlers, "an import has set up logging"
app = create_app(Settings(models_dir=Path(sys.argv[1]), workers=1))
with TestClient(app, base_url="http://localhost") as client:
    while (ready := client.get("/readyz")).json()["status"] == "loading":
        pass
    assert ready.status_code == 200, ready.text
    assert len(client.get("/v1/models").json()["models"]) == 2
"""


def test_the_service_starts_without_what_training_needs(tmp_path: Path) -> None:
    write_scorer(tmp_path / "scorer")
    write_denoiser(tmp_path / "denoiser")
    absent = {library for library, home in HOMES.items() if home == "training"} | {"training", "client", "tests"}
    run_without(absent, SERVE, tmp_path)


def test_the_runtime_needs_neither_a_server_nor_a_framework() -> None:
    absent = {library for library, home in HOMES.items() if home != "runtime"} | OURS - {"runtime"}
    modules = [module_of(file) for file in sources("runtime")]
    run_without(absent, f"import {', '.join(modules)}")


def test_the_client_stands_alone() -> None:
    absent = (set(HOMES) | OURS | {"numpy", "cv2", "pydantic", "onnxruntime"}) - {"client"}
    run_without(absent, "import client.batch_score")
