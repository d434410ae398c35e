"""The journal: an interrupted and resumed run gives the bytes of an uninterrupted one."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import KEYS, Client
from tests.client.fake_service import DROPPED, Reply, Request, problem


def bodies(client: Client) -> list[str]:
    return sorted(request.body.decode() for request in client.service.posts)


def errors_in(path: Path) -> dict[str, str]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["path"]: row["error"] for row in rows if row["error"]}


def hold_after(client: Client, count: int) -> None:
    """Let only so many images through, until the service is released."""

    def fault(request: Request) -> Reply | None:
        if request.method == "POST" and len(client.service.posts) > count:
            client.service.released.wait()
        return None

    client.service.fault = fault


def wait_for_results(journal: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the journal has its header and so many results."""
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < count + 1:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_posts(client: Client, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(client.service.posts) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_killed_run_resumes_to_the_same_bytes(suffix: str, client: Client) -> None:
    whole, out = client.folder / f"whole.{suffix}", client.folder / f"scores.{suffix}"
    assert client.run(client.frames, "--out", whole).code == 0
    client.service.posts.clear()
    hold_after(client, 5)
    process = client.start(client.frames, "--out", out, "--concurrency", "2")
    wait_for_results(client.folder / f".scores.{suffix}.journal", 5, process)
    wait_for_posts(client, 5 + 2)  # both that are under way have arrived: none comes in late, after the kill
    process.kill()
    process.wait()
    assert not out.exists()
    client.service.released.set()
    client.service.posts.clear()
    result = client.run(client.frames, "--out", out)
    assert result.code == 0
    assert "7 scored" in result.output
    assert "5 done before" in result.output
    assert len(client.service.posts) == 7
    assert out.read_bytes() == whole.read_bytes()


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(client: Client) -> None:
    out = client.folder / "scores.jsonl"
    hold_after(client, 4)
    process = client.start(client.frames, "--out", out, "--concurrency", "3")
    wait_for_results(client.folder / ".scores.jsonl.journal", 4, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "\nStopped. What is done is kept: the same command again goes on from there.\n"
    client.service.released.set()
    assert "4 done before" in client.run(client.frames, "--out", out).output


@pytest.mark.parametrize("end", [b'{"path": "cam2/night/005.jpg", "sco', b"\0\0\0\0", b"\xff\xfe\n[1]\n"])
def test_a_torn_line_costs_only_its_own_image(end: bytes, client: Client) -> None:
    out, journal = client.folder / "scores.csv", client.folder / ".scores.csv.journal"
    client.run(client.frames, "--out", out)
    whole = out.read_bytes()
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"cam2/night/005.jpg"' not in line]
    journal.write_bytes(b"".join(kept) + end)
    out.unlink()
    client.service.posts.clear()
    assert client.run(client.frames, "--out", out).code == 0
    assert bodies(client) == ["cam2/night/005.jpg"]
    assert out.read_bytes() == whole
    client.service.posts.clear()
    assert client.run(client.frames, "--out", out).code == 0  # what followed the torn line is readable
    assert not client.service.posts


@pytest.mark.parametrize("content", [b"", b'{"clearwatch_jour'])
def test_a_torn_first_line_begins_afresh(content: bytes, client: Client) -> None:
    (client.folder / ".scores.csv.journal").write_bytes(content)
    assert client.run(client.frames, "--out", client.folder / "scores.csv").code == 0
    assert len(client.service.posts) == len(KEYS)


@pytest.mark.parametrize("content", [b"path,score\n", b"[]\n"])
def test_a_file_that_is_no_journal_is_refused(content: bytes, client: Client) -> None:
    (client.folder / ".scores.csv.journal").write_bytes(content)
    result = client.run(client.frames, "--out", client.folder / "scores.csv")
    assert result.code == 2
    assert "is not a journal of this program" in result.errors


def test_a_later_run_adds_only_what_is_new(client: Client) -> None:
    out = client.folder / "scores.jsonl"
    client.run(client.frames, "--out", out)
    before = out.read_bytes()
    client.service.posts.clear()
    assert client.run(client.frames, "--out", out).code == 0
    assert not client.service.posts
    assert out.read_bytes() == before
    (client.frames / "cam1" / "0005.jpg").write_bytes(b"new")
    assert client.run(client.frames, "--out", out).code == 0
    assert bodies(client) == ["new"]
    paths = [json.loads(line)["path"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert paths == sorted([*KEYS, "cam1/0005.jpg"])


def test_failed_images_are_in_the_output_and_tried_again(client: Client) -> None:
    whole, out = client.folder / "whole.jsonl", client.folder / "scores.jsonl"
    client.run(client.frames, "--out", whole)
    bad = {key.encode(): problem(400, "the image is truncated") for key in (KEYS[2], KEYS[8])}
    client.service.fault = lambda request: bad.get(request.body)
    result = client.run(client.frames, "--out", out)
    assert result.code == 1
    assert "10 scored" in result.output
    assert "2 failed" in result.output
    assert errors_in(out) == dict.fromkeys((KEYS[2], KEYS[8]), "the image is truncated (HTTP 400)")
    bad.popitem()
    client.service.posts.clear()
    assert client.run(client.frames, "--out", out).code == 1
    assert bodies(client) == [KEYS[2], KEYS[8]]
    bad.clear()
    client.service.posts.clear()
    assert client.run(client.frames, "--out", out).code == 0
    assert bodies(client) == [KEYS[2]]
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ("--model ped2", "model None, not 'ped2'"),
        ("--threshold 0.5", "threshold None, not 0.5"),
        ("--camera door", "camera None, not 'door'"),
        ("--heatmaps maps", "heatmap 'none', not 'overlay'"),
        ("--root .", "root "),
    ],
)
def test_other_parameters_are_refused(
    arguments: str, changed: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(client.folder)
    client.run("frames", "--out", "scores.csv")
    client.service.posts.clear()
    result = client.run("frames", "--out", "scores.csv", *arguments.split())
    assert result.code == 2
    assert f"was begun with {changed}" in result.errors
    assert not client.service.posts
    assert client.run("frames", "--out", "scores.csv", *arguments.split(), "--restart").code == 0
    assert len(client.service.posts) == len(KEYS)


def test_another_model_on_the_server_is_refused(client: Client) -> None:
    out = client.folder / "scores.csv"
    client.run(client.frames, "--out", out)
    before = out.read_bytes()
    (client.frames / "new.jpg").write_bytes(b"new")
    client.service.model_sha256 = "cd" * 32
    result = client.run(client.frames, "--out", out)
    assert result.code == 2
    assert f"the model on the server has changed (sha256 {'ab' * 32} before, sha256 {'cd' * 32} now)" in result.errors
    assert out.read_bytes() == before
    assert client.run(client.frames, "--out", out, "--restart").code == 0
    assert "ab" * 32 not in out.read_text(encoding="utf-8")


def test_a_model_that_changes_during_the_run_stops_it(client: Client) -> None:
    def fault(_: Request) -> None:
        client.service.model_sha256 = "cd" * 32 if len(client.service.posts) > 4 else "ab" * 32

    client.service.fault = fault
    assert client.run(client.frames, "--out", client.folder / "scores.csv", "--concurrency", "1").code == 2
    assert len(client.service.posts) == 5
    assert not (client.folder / "scores.csv").exists()


def test_an_output_without_its_journal_is_not_replaced_unasked(client: Client) -> None:
    out = client.folder / "scores.csv"
    out.write_text("mine\n", encoding="utf-8")
    result = client.run(client.frames, "--out", out)
    assert result.code == 2
    assert "exists but not its journal" in result.errors
    assert out.read_text(encoding="utf-8") == "mine\n"
    assert client.run(client.frames, "--out", out, "--restart").code == 0


def test_a_service_that_disappears_ends_with_3_and_loses_nothing(client: Client) -> None:
    whole, out = client.folder / "whole.jsonl", client.folder / "scores.jsonl"
    client.run(client.frames, "--out", whole)
    client.service.posts.clear()
    client.service.fault = lambda _: DROPPED if len(client.service.posts) > 6 else None
    result = client.run(client.frames, "--out", out, "--retries", "1", "--concurrency", "2")
    assert result.code == 3
    assert "the same command again goes on from there" in result.errors
    journal = (client.folder / ".scores.jsonl.journal").read_text(encoding="utf-8").splitlines()
    assert ['"error": null' in line for line in journal] == [False] + [True] * 6  # no image is blamed
    assert not out.exists()
    client.service.fault = lambda _: None
    assert "6 done before" in client.run(client.frames, "--out", out).output
    assert out.read_bytes() == whole.read_bytes()


def test_scores_that_are_still_missing_are_no_failures(client: Client) -> None:
    reply = {
        "model": {"name": "clip", "version": "1", "sha256": "ef"},
        "score": None,
        "state": "warming_up",
        "anomalous": None,
    }
    body = json.dumps(reply).encode()
    client.service.fault = lambda request: Reply(200, body) if request.method == "POST" else None
    result = client.run(client.frames, "--out", client.folder / "scores.csv", "--top", "5")
    assert result.code == 0
    assert "12 scored, 0 anomalous, 0 failed" in result.output
