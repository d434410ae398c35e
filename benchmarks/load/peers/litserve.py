"""LitServe with its fast queue: a process for each core, runs of one thread; it takes JSON, so the JPEG as base64."""

import base64

from litserve import LitAPI, LitServer

from benchmarks.load.peers.scorer import PORT, WORKERS, Scorer


class Scoring(LitAPI):  # type: ignore[misc] # it may not be installed
    """Takes {"image": base64}."""

    def setup(self, device: str) -> None:
        """Open the model in a worker, whatever the device."""
        del device
        self._scorer = Scorer(threads=1)

    def decode_request(self, request: dict[str, str]) -> bytes:
        """Return the JPEG."""
        return base64.b64decode(request["image"])

    def predict(self, x: bytes) -> float:
        """Score it."""
        return self._scorer.score(x)

    def encode_response(self, output: float) -> dict[str, float]:
        """Return the reply."""
        return {"score": output}


if __name__ == "__main__":
    api = Scoring(api_path="/score")
    server = LitServer(api, accelerator="cpu", workers_per_device=WORKERS, fast_queue=True, timeout=False)
    server.run(host="127.0.0.1", port=PORT, log_level="warning", generate_client_file=False)
