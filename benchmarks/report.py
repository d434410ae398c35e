"""A benchmark's report: one Markdown table for people, the same figures as JSON for machines."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from training.card import Row, markdown
from training.trainer import environment


@dataclass(frozen=True)
class Arguments:
    """What every benchmark takes."""

    data: Path
    json: Path | None


@dataclass
class Report:
    """Named tables, in order."""

    protocol: str
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, table: str, rows: Sequence[Row]) -> None:
        """Append rows to a table and print it."""
        self.tables.setdefault(table, []).extend(rows)
        print(f"\n### {table}\n\n{markdown(rows)}", flush=True)

    def write(self, path: Path | None) -> None:
        """Write everything with the environment it was measured in."""
        if path is not None:
            figures = {"protocol": self.protocol, "environment": environment(), "tables": self.tables}
            path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the command line that all benchmarks share."""
    shared = argparse.ArgumentParser(description=description)
    shared.add_argument("--data", type=Path, default=Path("data"), help="where the data sets are (docs/data.md)")
    shared.add_argument("--json", type=Path, help="also write the figures to this file")
    return shared


def arguments(description: str | None) -> Arguments:
    """Parse it for a benchmark that takes nothing else."""
    return Arguments(**vars(parser(description).parse_args()))
