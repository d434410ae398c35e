"""The load benchmark: its pure parts, and one real round where wrk is installed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks import serving
from benchmarks.load import bench as load_bench
from benchmarks.load import comparison
from benchmarks.load.bench import Bench, Visit
from benchmarks.load.comparison import musts
from benchmarks.load.contenders import (
    BARE_ASGI,
    ENGINES,
    MOSEC,
    OURS,
    PEERS,
    find,
    in_json,
    multipart,
    ours,
    raw,
    tensor,
)
from benchmarks.load.frames import jpeg
from benchmarks.load.raw import Limit, measure
from benchmarks.load.results import Result, latency, limits, p99, rate, ratio, throughput
from benchmarks.load.servers import Server, ServerFailed, running
from benchmarks.load.wrk import Load, LoadFailed, parse, require_wrk
from benchmarks.report import Report
from tests.model_folders import write_scorer

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="the load comes from wrk, which is not installed")

LINE = '{"replies": 50, "seconds": 2.5, "refused": 10, "broken": 1, "p50_ms": 20.5, "p99_ms": 31.0}'


def load(rate: float, p50_ms: float = 10, p99_ms: float = 11) -> Load:
    return Load(int(10 * rate), rate, p50_ms, p99_ms, 0)


def result(name: str, *rates: float, limit: float = 100, p99_ms: float = 11) -> Result:
    visits = [Visit({1: load(90), 8: load(each), 32: load(each, p99_ms=p99_ms)}, 100 + each, 9.0) for each in rates]
    return Result(name, visits, [Limit(limit, 9.5, 8.0)] * len(rates))


def test_what_wrk_prints_is_read() -> None:
    assert parse(f"Running 2s test\n{LINE}\n") == Load(40, 16, 20.5, 31.0, 11)


def test_a_load_that_measured_nothing_says_what_wrk_said() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused")
    with pytest.raises(LoadFailed, match="7 connections broke"):
        parse('{"replies": 0, "seconds": 1, "refused": 0, "broken": 7, "p50_ms": 0, "p99_ms": 0}')


def test_without_wrk_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="apt-get install wrk"):
        require_wrk()


def test_shares_are_medians_of_rounds_and_not_ratios_of_medians() -> None:
    visits = [Visit({8: load(each)}, 1, 1) for each in (50, 90, 20)]
    found = Result("x", visits, [Limit(each, 1, 1) for each in (100, 100, 25)])
    assert found.share(8) == pytest.approx(0.8)
    assert found.rate(8) == 50


def test_two_servers_are_compared_round_by_round() -> None:
    first, second = result("a", 10, 30, 90), result("b", 10, 10, 100)
    assert ratio(first, second, 8, rate) == 1
    assert ratio(first, second, 32, p99) == 1


def test_tables_have_a_row_a_server_and_one_an_engine() -> None:
    found = result(OURS, 95, 97, 96)
    row = throughput([found], (1, 8))[0]
    assert row["1"] == 90
    assert row["8"] == 96
    assert row["share of raw, 8"] == pytest.approx(0.96)
    assert row["MB"] == 197
    alone = limits({"onnxruntime fp32": found.limits}, (1, 8))[0]
    assert alone["1"] == pytest.approx(1000 / 9.5)
    assert alone["8"] == 100
    assert latency([found], (1, 8))[0]["p99, 8"] == 11


def test_the_service_is_held_to_its_share_its_tail_and_to_mosec() -> None:
    own, mosec = result(f"{OURS}, onnxruntime fp32", 96), result(MOSEC, 97)
    found = {
        must.what.partition(": ")[2] or must.what: must for must in musts({own.name: own, MOSEC: mosec}, (1, 8, 32))
    }
    assert found["share of the engine alone, 8 connections"].kept
    assert found["p99 / p50, 32 connections"].kept
    assert found["ms beyond the engine alone, 1 connection"].found[own.name] == pytest.approx(0.5)
    assert not found["throughput beside mosec, 8 connections"].kept
    assert found["p99 beside mosec, 32 connections"].kept
    assert found["MB with one model"].kept


def test_bf16_is_held_to_every_peers_best() -> None:
    own = {
        name: result(name, each) for name, each in ((f"{OURS}, onnxruntime fp32", 95), (f"{OURS}, OpenVINO bf16", 150))
    }
    peers = {name: result(name, each) for name, each in (("slow", 50), ("fast", 100))}
    must = next(must for must in musts(own | peers, (8,)) if must.what == "throughput beside fast, 8 connections")
    assert must.found == {f"{OURS}, OpenVINO bf16": 1.5}
    assert not must.kept


def test_a_form_has_the_image_whole() -> None:
    body = multipart(b"\xff\xd8 image").body
    assert b"\r\n\r\n\xff\xd8 image\r\n--" in body


def test_a_request_says_its_length() -> None:
    sent = raw(b"1234", "/v1/score").as_bytes()
    assert sent.startswith(b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert sent.endswith(b"Content-Length: 4\r\n\r\n1234")
    assert json.loads(in_json(b"1234").body) == {"image": "MTIzNA=="}
    upload = tensor(b"1234")
    head = int(upload.headers["Inference-Header-Content-Length"])
    assert json.loads(upload.body[:head])["inputs"][0]["parameters"] == {"binary_data_size": 4}
    assert upload.body[head:] == b"1234"


def test_peers_that_no_interpreter_has_are_missing_and_no_error(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(empty)], check=True, timeout=100)
    found = find(PEERS, [empty / "bin" / "python"])
    assert found.present[PEERS[0].name] == Path(sys.executable)
    assert empty / "bin" / "python" not in found.present.values()
    assert {*found.present, *found.missing} == {peer.name for peer in PEERS}


def test_a_server_that_ends_at_once_is_told_with_its_last_words() -> None:
    broken = Server("broken", [sys.executable, "-c", "raise SystemExit('no such model')"], [raw(b"")])
    with pytest.raises(ServerFailed, match="no such model"), running(broken):
        pass


def test_the_engine_alone_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    folder, frame = write_scorer(tmp_path / "scorer", height=16, width=16, channels=3), tmp_path / "frame.jpg"
    frame.write_bytes(jpeg(16, 16))
    found = measure(folder / "autoencoder.onnx", frame, "onnxruntime", workers=2, seconds=0.1)
    assert found.rate > 0
    assert 0 < found.cpu_ms < 1000
    assert 0 < found.lone_ms < 1000


@needs_wrk
def test_the_service_answers_under_load(tmp_path: Path) -> None:
    folder = write_scorer(tmp_path / "models" / "scorer", height=16, width=16, channels=3)
    bench = Bench(tmp_path, workers=1, rounds=1, seconds=1, connections=(2,), pythons=(), pictures=None,
                  report=Report("a test"))  # fmt: skip
    server = ours(folder.parent, ENGINES[0].device, 1, [raw(jpeg(16, 16), "/v1/score")])
    visit = bench.visit(server, [2])
    assert visit.loads[2].replies > 0
    assert visit.loads[2].failed == 0
    assert visit.memory_mb > 10
    assert visit.cpu_ms > 0


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers and engines have figures without being started, and models cost no time to export."""

    def visit(_: Bench, server: Server, connections: Iterable[int]) -> Visit:
        if server.name == PEERS[0].name:
            raise ServerFailed("it does not start")
        return Visit({count: load(95) for count in connections}, 100, 9)

    def write(folder: Path) -> Path:
        return write_scorer(folder, height=16, width=16, channels=3)

    monkeypatch.setattr(load_bench, "write_autoencoder", write)
    monkeypatch.setattr(load_bench, "write_null", write)
    monkeypatch.setattr(Bench, "visit", visit)
    monkeypatch.setattr(comparison, "measure", lambda *_: Limit(100, 9.5, 8))
    monkeypatch.setattr(serving, "require_wrk", lambda: "wrk")


@pytest.mark.usefixtures("no_processes")
def test_the_command_reports_every_section_and_what_was_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    command = ["serving", "--rounds", "2", "--workers", "1", "--json", str(figures), "--pictures", str(pictures)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"missed: requests/s with a model that costs nothing >= 3800: found 95"):
        serving.main()
    printed = capsys.readouterr().out
    assert f"{PEERS[0].name} was not measured: it does not start" in printed
    assert f"| {OURS}, onnxruntime fp32 |" in printed
    tables = json.loads(figures.read_text())["tables"]
    assert tables["Throughput"][0]["share of raw, 32"] == pytest.approx(0.95)
    assert {row[""] for row in tables["The server alone, 32 connections"]} >= {OURS, BARE_ASGI.name}
    assert [row["models"] for row in tables["Growth: models, 8 connections"]] == ["1", "2", "4", "8", "16"]
    assert {row["ok"] for row in tables["Musts"]} == {"yes", "NO"}
    assert sorted(path.name for path in pictures.iterdir()) == [
        "growth-cameras.png", "growth-models.png", "growth-pixels.png"
    ]  # fmt: skip
