"""POST /v1/sample: the same seed gives the same images, and the reply holds all that is needed to have them again."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from runtime.images import decode


def sample(client: httpx.Client, **body: Any) -> Any:  # noqa: ANN401 - JSON
    reply = client.post("/v1/sample", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_same_seed_gives_the_same_images(client: httpx.Client) -> None:
    first, again, more = sample(client, n=3, seed=7), sample(client, n=3, seed=7), sample(client, n=5, seed=7)
    assert first == again
    assert more["images"][:3] == first["images"]
    assert sample(client, n=3, seed=8)["images"] != first["images"]
    assert decode(base64.b64decode(first["images"][0])).pixels.shape == (16, 16, 1)


def test_a_seed_that_was_not_given_is_told(client: httpx.Client) -> None:
    drawn = sample(client)
    assert sample(client, seed=drawn["seed"]) == drawn


def test_latents_are_used_as_they_are(client: httpx.Client) -> None:
    drawn = sample(client, n=2, seed=1)
    again = sample(client, latents=drawn["latents"])
    assert again["images"] == drawn["images"]
    assert again["seed"] is None


def test_temperature_scales_the_latents(client: httpx.Client) -> None:
    cold, warm = sample(client, seed=1, temperature=0.5), sample(client, seed=1)
    assert np.allclose(np.asarray(cold["latents"]) * 2, warm["latents"])


def test_a_grid(client: httpx.Client) -> None:
    reply = client.post("/v1/sample", json={"n": 5, "seed": 1}, headers={"Accept": "image/png"})
    grid = decode(reply.content).pixels
    assert grid.shape == (2 * 18 - 2, 3 * 18 - 2, 1)
    single = decode(base64.b64decode(sample(client, n=5, seed=1)["images"][4])).pixels
    assert np.array_equal(grid[18:34, 18:34], single)
    assert reply.headers["x-seed"] == "1"


@pytest.mark.parametrize(
    "body",
    [
        '{"n": 0}',
        '{"n": 65}',
        '{"n": 1.5}',
        '{"seed": -1}',
        '{"temperature": NaN}',
        '{"latents": []}',
        '{"latents": [[1, 2]]}',
        '{"latents": [[1, 2, 3, 4]], "n": 2}',
        '{"latents": [[1, 2, 3, 4]], "seed": 2}',
        '{"latents": [[1, 2, 3, 1e999]]}',
        '{"count": 3}',
        "[]",
        "{",
        "",
        "[" * 100_000,
    ],
)
def test_a_body_that_makes_no_sense_is_422(client: httpx.Client, body: str) -> None:
    reply = client.post("/v1/sample", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422, reply.text
    assert reply.headers["content-type"] == "application/problem+json"


def test_too_much_of_a_body_is_413(client: httpx.Client) -> None:
    reply = client.post("/v1/sample", content=b" " * 5_000_000, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413
