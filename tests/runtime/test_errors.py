"""The tree of failures: what the docstring draws is what there is."""

import re

import pytest

from runtime import errors
from runtime.errors import ClearwatchError, ImageError, ModelError, Overloaded, UnreadableImage


def family(root: type[ClearwatchError]) -> list[type[ClearwatchError]]:
    return [root, *(member for child in root.__subclasses__() for member in family(child))]


def drawn() -> dict[str, str]:
    """Read class -> parent off the tree in the module's docstring."""
    parents: dict[str, str] = {}
    open_branches: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^    ([│ ]*[├└]── )?([A-Z]\w+)", line):
            depth = len(found[1] or "")
            open_branches = [(other, name) for other, name in open_branches if other < depth]
            parents[found[2]] = open_branches[-1][1] if open_branches else "Exception"
            open_branches.append((depth, found[2]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    ours = [member for member in family(ClearwatchError) if member.__module__ == errors.__name__]
    assert drawn() == {member.__name__: member.__bases__[0].__name__ for member in ours}


def test_every_failure_says_when_it_happens() -> None:
    assert [member for member in family(ClearwatchError) if not member.__doc__] == []


def test_a_family_is_caught_by_its_name() -> None:
    assert issubclass(UnreadableImage, ImageError)
    assert not issubclass(UnreadableImage, ModelError)
    with pytest.raises(ClearwatchError, match="2 in the queue"):
        raise Overloaded("2 in the queue", retry_after_s=1.5)


def test_an_overload_says_when_to_come_back() -> None:
    assert Overloaded("full", retry_after_s=1.5).retry_after_s == 1.5
