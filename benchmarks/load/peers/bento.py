"""BentoML: a process for each core, runs of one thread, no adaptive batching, for on a CPU batches buy nothing."""

import os
import sys
from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.load.peers.scorer import PORT, WORKERS, Scorer


@bentoml.service(workers=WORKERS, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Scoring:
    """Takes a multipart upload."""

    def __init__(self) -> None:
        self._scorer = Scorer(threads=1)

    @bentoml.api(route="/score")  # type: ignore[untyped-decorator]
    def score(self, file: Annotated[Path, ContentType("image/jpeg")]) -> dict[str, float]:
        """Score it."""
        return {"score": self._scorer.score(file.read_bytes())}


if __name__ == "__main__":
    command = [sys.executable, "-m", "bentoml", "serve", "benchmarks.load.peers.bento:Scoring"]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(PORT)])  # noqa: S606 - our own arguments
