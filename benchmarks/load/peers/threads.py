"""FastAPI done well: the raw body, a thread for each core, runs of one thread, uvloop and httptools, no access log."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from benchmarks.load.peers.scorer import PORT, WORKERS, Scorer

app = FastAPI()
scorer = Scorer(threads=1)
pool = ThreadPoolExecutor(WORKERS)


@app.post("/score")
async def score(request: Request) -> Response:
    """Score the body."""
    jpeg = await request.body()
    found = await asyncio.get_running_loop().run_in_executor(pool, scorer.score, jpeg)
    return JSONResponse({"score": found})


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, loop="uvloop", http="httptools", access_log=False, log_level="warning")
