"""The table of failures covers the whole tree, and keeps what it promises."""

from collections.abc import Iterator

import pytest

from runtime.errors import ClearwatchError
from service.problems import KINDS


def family(cls: type[ClearwatchError]) -> Iterator[type[ClearwatchError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


@pytest.mark.parametrize("cls", list(family(ClearwatchError)))
def test_every_failure_has_a_row(cls: type[ClearwatchError]) -> None:
    assert cls in KINDS, f"service/problems.py says nothing of {cls.__name__}"
    assert 400 <= KINDS[cls].status < 600
    assert KINDS[cls].title


def test_types_are_stable_and_distinct() -> None:
    types = [kind.type for kind in KINDS.values()]
    assert len(set(types)) == len(types)
