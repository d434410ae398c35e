"""What the Accept header asks for, RFC 9110 section 12.5.1: the most specific range gives a type its weight."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import FormatNotOffered


@dataclass(frozen=True)
class Accept:
    """Weights in 0..1 by media range, as `image/png`, `image/*` or `*/*`."""

    weights: tuple[tuple[str, float], ...]

    @classmethod
    def parse(cls, header: str) -> "Accept":
        """Read the header; an absent or an empty one accepts everything."""
        ranges = [_range(item) for item in header.split(",") if item.strip()]
        return cls(tuple(ranges) or (("*/*", 1.0),))

    def weight(self, media_type: str) -> float:
        """Return how welcome a media type is; 0 is not at all."""
        found = dict(self.weights)
        for pattern in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
            if pattern in found:
                return found[pattern]
        return 0.0

    def best(self, offers: Sequence[str]) -> str | None:
        """Return the most welcome offer, the first of equals; None if none is welcome."""
        welcome = max(offers, key=self.weight)  # max keeps the first of equals
        return welcome if self.weight(welcome) > 0 else None

    def require(self, offers: Sequence[str]) -> str:
        """Return the best offer, or raise FormatNotOffered."""
        welcome = self.best(offers)
        if welcome is None:
            raise FormatNotOffered(f"none of what Accept asks for can be given; there are {', '.join(offers)}")
        return welcome


def _range(item: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip() for part in item.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            return media_range.lower(), _quality(value)
    return media_range.lower(), 1.0


def _quality(value: str) -> float:
    try:
        quality = float(value)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0  # a NaN is refused too
