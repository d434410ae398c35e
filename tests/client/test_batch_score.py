"""`score`: keys, formats, parameters, heat maps, contact sheet, and what stops a run at once."""

import csv
import io
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from client.batch_score import ScoreRow, columns, main
from tests.client.conftest import KEYS, SCRIPT, Client
from tests.client.fake_service import HEATMAP, Reply, problem, score_of


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: text if name in {"path", "version"} else parse(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def parse(text: str) -> object:
    try:
        return json.loads(text or "null")
    except ValueError:
        return text


def read_parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return [{**row, "regions": parse(row["regions"] or "")} for row in rows]


WRONG_URLS = ("host", "ftp://host", "http://", "http://host:port")
READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}


@pytest.mark.parametrize("suffix", READERS)
def test_every_format_holds_the_replies_by_relative_path(suffix: str, client: Client) -> None:
    out = client.folder / "results" / f"scores.{suffix}"
    assert client.run(client.frames, "--out", out, "--threshold", "0.5").code == 0
    rows = READERS[suffix](out)
    assert [row["path"] for row in rows] == KEYS
    assert all(list(row) == columns(ScoreRow) for row in rows)
    for row in rows:
        score = score_of(row["path"].encode())
        regions = [{"box": [0.25, 0.5, 0.75, 1.0], "score": score}]
        assert row == {
            "path": row["path"],
            "score": score,
            "p_value": 1 - score,
            "threshold": 0.5,
            "threshold_source": "request",
            "false_alarm_rate": 0.01,
            "state": "anomalous" if score > 0.5 else "normal",
            "anomalous": score > 0.5,
            "model": "standard",
            "version": "3",
            "sha256": client.service.model_sha256,
            "regions": regions if score > 0.5 else [],
            "error": None,
        }
    assert {request.headers["Content-Type"] for request in client.service.posts} == {"image/jpeg"}


def test_parquet_keeps_its_types_when_a_column_is_empty(client: Client) -> None:
    client.service.fault = lambda request: problem(400, "unreadable") if request.method == "POST" else None
    assert client.run(client.frames, "--out", client.folder / "scores.parquet").code == 1
    schema = parquet.read_schema(client.folder / "scores.parquet")
    assert [str(schema.field(name).type) for name in ("score", "anomalous", "regions")] == ["double", "bool", "string"]


def test_only_visible_images_are_found_and_each_has_its_content_type(client: Client) -> None:
    folder = client.folder / "mixed"
    (folder / ".cache").mkdir(parents=True)
    for name in ("a.JPG", "b.jpeg", "c.png", "d.webp", "e.BMP", "notes.txt", ".hidden.jpg", ".cache/f.jpg"):
        (folder / name).write_bytes(name.encode())
    assert client.run("score", folder, "--out", client.folder / "scores.jsonl").code == 0
    assert {request.body.decode(): request.headers["Content-Type"] for request in client.service.posts} == {
        "a.JPG": "image/jpeg",
        "b.jpeg": "image/jpeg",
        "c.png": "image/png",
        "d.webp": "image/webp",
        "e.BMP": "image/bmp",
    }


def test_quoted_and_expanded_patterns_give_the_same_keys(client: Client) -> None:
    quoted, expanded = client.folder / "quoted.jsonl", client.folder / "expanded.jsonl"
    assert client.run(client.frames / "**" / "00[0-2].jpg", "--out", quoted).code == 0
    assert client.run(*client.frames.rglob("00[0-2].jpg"), "--out", expanded).code == 0
    assert [row["path"] for row in read_jsonl(quoted)] == KEYS[0:3] + KEYS[6:9]
    assert quoted.read_bytes() == expanded.read_bytes()


def test_a_file_is_known_by_its_name_unless_a_root_is_given(client: Client) -> None:
    arguments = (client.frames / "cam1" / "000.jpg", "--out", client.folder / "scores.jsonl")
    assert client.run(*arguments).code == 0
    assert read_jsonl(client.folder / "scores.jsonl")[0]["path"] == "000.jpg"
    assert client.run(*arguments, "--root", client.frames, "--restart").code == 0
    assert read_jsonl(client.folder / "scores.jsonl")[0]["path"] == "cam1/000.jpg"


def test_a_name_that_is_not_utf8_breaks_no_format(client: Client) -> None:
    try:
        (client.frames / "caf\udce9.jpg").write_bytes(b"latin")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for suffix, read in READERS.items():
        out = client.folder / f"scores.{suffix}"
        assert client.run(client.frames, "--out", out, "--top", "20", "--heatmaps", client.folder / suffix).code == 0
        assert read(out)[0]["path"] == "caf\\xe9.jpg"


def test_the_file_runs_alone_and_reads_paths_from_standard_input(client: Client) -> None:
    copy = client.folder / "elsewhere" / "tool.py"
    copy.parent.mkdir()
    copy.write_bytes(SCRIPT.read_bytes())
    out = client.folder / "scores.jsonl"
    process = client.start("-", "--out", out, "--threshold", "1", script=copy, cwd=client.frames)
    output, errors = process.communicate(f"cam2/night/001.jpg\n\n{client.frames}/cam1/005.jpg\r\ncam1/gone.jpg\n")
    assert process.returncode == 1
    assert output == f"2 scored, 0 anomalous, 1 failed, 0 done before: {out}\n"
    assert not errors  # no progress bar where nobody looks
    rows = read_jsonl(out)
    assert [row["path"] for row in rows] == ["cam1/005.jpg", "cam1/gone.jpg", "cam2/night/001.jpg"]
    assert rows[1]["error"] == "cannot read the file: No such file or directory"


def test_missing_packages_are_named_with_their_cure(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = subprocess.run([sys.executable, "-S", str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
    assert (bare.returncode, bare.stderr) == (2, "error: httpx is not installed: pip install httpx tqdm\n")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    result = client.run(client.frames, "--out", client.folder / "scores.parquet")
    assert (result.code, result.errors) == (2, "error: Parquet needs pyarrow: pip install pyarrow\n")
    assert not client.service.posts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("frames --out scores.xlsx", "the suffix must be one of .jsonl, .csv, .parquet"),
        ("nowhere --out scores.csv", "nowhere: no such file or folder"),
        ("frames/*.png --out scores.csv", "no images (.jpg, .jpeg, .png, .webp, .bmp) in frames/*.png"),
        ("frames/notes.txt --out scores.csv", "notes.txt: not one of .jpg"),
        ("frames --root frames/cam1 --out scores.csv", "give --root, such as"),
        ("frames --heatmaps . --out scores.csv", "give a folder of its own for the results"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_sent(
    arguments: str, message: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (client.frames / "notes.txt").touch()
    monkeypatch.chdir(client.folder)
    result = client.run(*arguments.split())
    assert result.code == 2
    assert message in result.errors
    assert not client.service.posts


@pytest.mark.parametrize(
    "arguments",
    ["", "frames", "frames --out a.csv --concurrency 0", *(f"frames --out a.csv --url {url}" for url in WRONG_URLS)],
)
def test_a_wrong_command_line_ends_with_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "word"), [([], "examples:"), (["score"], "journal"), (["denoise"], "--sigma")])
def test_help_teaches(command: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert word in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "variable", "sent"),
    [([], "", None), ([], "secret", "Bearer secret"), (["--token", "mine"], "secret", "Bearer mine")],
)
def test_the_token_comes_from_the_option_or_the_environment(
    arguments: list[str], variable: str, sent: str | None, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARWATCH_TOKEN", variable)
    assert client.run(client.frames, "--out", client.folder / "scores.csv", *arguments).code == 0
    assert {request.headers["Authorization"] for request in client.service.posts} == {sent}


def test_parameters_are_sent_only_when_given(client: Client) -> None:
    client.run(client.frames, "--out", client.folder / "a.csv")
    client.run(
        client.frames, "--out", client.folder / "b.csv", "--model", "ped2", "--camera", "door", "--threshold", "0.25"
    )
    queries = [request.query for request in client.service.posts]
    assert queries[: len(KEYS)] == [{"heatmap": "none"}] * len(KEYS)
    assert queries[len(KEYS) :] == [{"model": "ped2", "camera": "door", "threshold": "0.25", "heatmap": "none"}] * len(
        KEYS
    )


@pytest.mark.parametrize(("style", "prefix"), [("overlay", ""), ("png", "data:image/png;base64,")])
def test_heat_maps_are_saved_under_the_same_paths(style: str, prefix: str, client: Client) -> None:
    client.service.heatmap_prefix = prefix
    maps = client.frames / "maps"  # inside the source: must not be scored by the next run
    for _ in range(2):
        out = client.folder / "scores.csv"
        assert client.run(client.frames, "--out", out, "--heatmaps", maps, "--heatmap-style", style).code == 0
    assert len(client.service.posts) == len(KEYS)
    assert {request.query["heatmap"] for request in client.service.posts} == {style}
    saved = {file.relative_to(maps).as_posix(): file.read_bytes() for file in maps.rglob("*") if file.is_file()}
    assert saved == {f"{key}.png": HEATMAP + key.encode() for key in KEYS}


def test_the_contact_sheet_shows_the_highest_scores_and_needs_nothing_else(client: Client) -> None:
    (client.frames / 'a <b> & "c".png').write_bytes(b"picture")
    client.run(client.frames, "--out", client.folder / "scores.csv", "--top", "13")
    page = (client.folder / "scores.csv.top.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 13
    assert "a &lt;b&gt; &amp; &quot;c&quot;.png" in page
    assert "<b>" not in page
    assert "data:image/png;base64,cGljdHVyZQ==" in page
    assert "http" not in page.replace("http-equiv", "")
    ranked = sorted(KEYS, key=lambda key: -score_of(key.encode()))
    places = [page.index(f">{key}<") for key in ranked]
    assert places == sorted(places)
    assert f"{score_of(ranked[0].encode()):.6g}" in page
    client.run(client.frames, "--out", client.folder / "scores.csv", "--top", "3")
    page = (client.folder / "scores.csv.top.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 3


def test_the_contact_sheet_takes_overlays_and_survives_deleted_images(client: Client) -> None:
    sheet = client.folder / "sheets" / "top.html"
    arguments = (client.frames, "--out", client.folder / "scores.jsonl", "--contact-sheet", sheet)
    assert client.run(*arguments, "--heatmaps", client.folder / "maps").code == 0
    assert sheet.read_text(encoding="utf-8").count("data:image/png") == len(KEYS)
    assert client.run(*arguments, "--restart").code == 0
    assert sheet.read_text(encoding="utf-8").count("data:image/jpeg") == len(KEYS)
    (client.frames / KEYS[0]).unlink()
    assert client.run(*arguments).code == 0
    assert sheet.read_text(encoding="utf-8").count("no longer there") == 1


@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_refusal_that_concerns_every_image_stops_at_once(status: int, client: Client) -> None:
    client.service.fault = lambda request: problem(status, "not like that") if request.method == "POST" else None
    result = client.run(client.frames, "--out", client.folder / "scores.csv", "--concurrency", "2")
    assert (result.code, result.errors) == (2, f"error: the service refuses: not like that (HTTP {status})\n")
    assert len(client.service.posts) <= 3
    assert [path.name for path in client.folder.iterdir()] == ["frames"]


def test_a_token_that_is_revoked_during_the_run_stops_it(client: Client) -> None:
    client.service.fault = lambda _: problem(401, "unknown token") if len(client.service.posts) > 4 else None
    result = client.run(client.frames, "--out", client.folder / "scores.csv", "--concurrency", "1")
    assert (result.code, result.errors) == (2, "error: the service refuses: unknown token (HTTP 401)\n")
    assert len(client.service.posts) == 5


def test_an_output_that_cannot_be_written_is_said(client: Client) -> None:
    (client.folder / "file").touch()
    result = client.run(client.frames, "--out", client.folder / "file" / "scores.csv")
    assert result.code == 2
    assert result.errors.startswith("error: ")
    assert str(client.folder / "file") in result.errors


def test_a_refusal_of_one_image_does_not_stop_the_others(client: Client) -> None:
    bad = KEYS[9]
    client.service.fault = lambda request: problem(422, "too small") if request.body == bad.encode() else None
    assert client.run(client.frames, "--out", client.folder / "scores.jsonl", "--concurrency", "1").code == 1
    errors = {row["path"]: row["error"] for row in read_jsonl(client.folder / "scores.jsonl") if row["error"]}
    assert errors == {bad: "too small (HTTP 422)"}


def test_validation_errors_are_shown(client: Client) -> None:
    body = {"title": "Invalid", "errors": [{"loc": ["query", "threshold"], "msg": "must be finite"}]}
    client.service.fault = lambda request: Reply(422, json.dumps(body).encode()) if request.method == "POST" else None
    result = client.run(client.frames, "--out", client.folder / "scores.csv")
    assert result.code == 2
    assert 'Invalid [{"loc": ["query", "threshold"], "msg": "must be finite"}] (HTTP 422)' in result.errors


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"score": 1}'])
def test_another_server_at_that_address_is_noticed(body: bytes, client: Client) -> None:
    client.service.fault = lambda _: Reply(200, body)
    result = client.run(client.frames, "--out", client.folder / "scores.csv")
    assert result.code == 2
    assert "does not answer as a Clearwatch service" in result.errors


def test_nothing_listening_ends_with_3(client: Client) -> None:
    with socket.socket() as taken:  # bound, so that nobody else gets the port, but not listening
        taken.bind(("127.0.0.1", 0))
        client.service.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = client.run(client.frames, "--out", client.folder / "scores.csv")
    assert result.code == 3
    assert f"no service at {client.service.url}: connection failed" in result.errors
    assert [path.name for path in client.folder.iterdir()] == ["frames"]


def test_an_unhealthy_service_ends_with_3(client: Client) -> None:
    client.service.fault = lambda _: problem(500, "broken")
    result = client.run(client.frames, "--out", client.folder / "scores.csv")
    assert result.code == 3
    assert "/healthz: broken (HTTP 500)" in result.errors
    assert not client.service.posts


def test_progress_is_shown_on_a_terminal(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert client.run(client.frames, "--out", client.folder / "scores.csv", "--threshold", "0").code == 0
    last = terminal.getvalue().rpartition("\r")[2]
    for part in ("12/12", "image/s", "anomalous=12", "failed=0"):
        assert part in last
