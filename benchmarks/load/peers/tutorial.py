"""FastAPI as tutorials have it: a multipart upload and a session as onnxruntime makes it."""

from typing import Annotated

import uvicorn
from fastapi import FastAPI, File, UploadFile

from benchmarks.load.peers.scorer import PORT, Scorer

app = FastAPI()
scorer = Scorer(threads=None)


@app.post("/score")
def score(file: Annotated[UploadFile, File()]) -> dict[str, float]:
    """Score an upload, in FastAPI's own thread pool."""
    return {"score": scorer.score(file.file.read())}


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, log_level="warning")
