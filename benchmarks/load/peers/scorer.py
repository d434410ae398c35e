"""What the peers share: a JPEG through the model in onnxruntime, and where to listen."""

import os

import onnxruntime as ort
import simplejpeg

MODEL = os.environ["PEER_MODEL"]
PORT = int(os.environ["PEER_PORT"])
WORKERS = int(os.environ["PEER_WORKERS"])


class Scorer:
    """The model, open. Safe to call from several threads."""

    def __init__(self, threads: int | None) -> None:
        """Open it for runs with so many threads; None leaves everything as onnxruntime has it."""
        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    def score(self, jpeg: bytes) -> float:
        """Return the anomaly score of one image of the model's size; the codec is the service's own."""
        frames = simplejpeg.decode_jpeg(jpeg, "RGB")[None]
        return float(self._session.run(["anomaly_score"], {"frames": frames})[0][0])
