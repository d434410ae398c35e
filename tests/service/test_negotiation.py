"""Accept, as RFC 9110 has it."""

import pytest

from service.negotiation import Accept

OFFERS = ("image/jpeg", "image/png", "application/json")


@pytest.mark.parametrize(
    ("header", "best"),
    [
        ("", "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/png;q=0.2, application/json;q=0.3", "application/json"),
        ("image/*;q=0.5, */*;q=0.1", "image/jpeg"),
        ("image/jpeg;q=0, */*", "image/png"),
        ("text/html, */*;q=0.1", "image/jpeg"),
        ("text/html", None),
        ("image/png;q=0", None),
        ("image/png;q=nan", None),
        ("image/png;q=x", None),
        ("image/png ; Q=0.5 , image/jpeg;q=0.4", "image/png"),
        (",,;", None),
    ],
)
def test_best(header: str, best: str | None) -> None:
    assert Accept.parse(header).best(OFFERS) == best
