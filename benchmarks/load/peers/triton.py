"""Triton with its Python backend, through pytriton: an instance a core, runs of one thread, batches of up to 8."""

import numpy as np
import numpy.typing as npt
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.load.peers.scorer import PORT, WORKERS, Scorer


@batch  # type: ignore[untyped-decorator] # it may not be installed
def score(jpeg: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """Score JPEGs [batch, bytes]."""
    return {"score": np.array([[scorer.score(row.tobytes())] for row in jpeg], np.float32)}


if __name__ == "__main__":
    scorer = Scorer(threads=1)
    config = TritonConfig(http_address="127.0.0.1", http_port=PORT, allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="score",
            infer_func=[score] * WORKERS,
            inputs=[Tensor(name="jpeg", dtype=np.uint8, shape=(-1,))],
            outputs=[Tensor(name="score", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=8, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
