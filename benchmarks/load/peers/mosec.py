"""mosec: its front end in Rust, a process for each core, runs of one thread, no batches."""

import os

from mosec import Server, Worker

from benchmarks.load.peers.scorer import PORT, WORKERS, Scorer


class Scoring(Worker):  # type: ignore[misc] # it may not be installed
    """Takes the JPEG as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._scorer = Scorer(threads=1)

    def deserialize(self, data: bytes) -> bytes:
        """Leave the body as it is."""
        return data

    def forward(self, data: bytes) -> dict[str, float]:
        """Score it."""
        return {"score": self._scorer.score(data)}


if __name__ == "__main__":
    os.environ |= {"MOSEC_PORT": str(PORT), "MOSEC_ADDRESS": "127.0.0.1", "MOSEC_TIMEOUT": "30000"}
    server = Server()
    server.append_worker(Scoring, num=WORKERS, route="/score")
    server.run()
