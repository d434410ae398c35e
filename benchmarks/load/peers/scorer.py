"""What the peers share: a JPEG through the model in onnxruntime, and where to listen."""

import os
from io import BytesIO

import numpy as np
import onnxruntime as ort
from PIL import Image

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
        _, self._height, self._width, _ = self._session.get_inputs()[0].shape

    def score(self, jpeg: bytes) -> float:
        """Return the anomaly score of one image."""
        with Image.open(BytesIO(jpeg)) as image:
            colour = image.convert("RGB")
            if colour.size != (self._width, self._height):
                colour = colour.resize((self._width, self._height))
            frames = np.asarray(colour, np.uint8)[None]
        return float(self._session.run(["anomaly_score"], {"frames": frames})[0][0])
