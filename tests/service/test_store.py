"""The model store: one bad folder stops no other, and a reload loses no request."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.devices import Device
from runtime.engines import OnnxRuntimeSession
from runtime.errors import ModelFolderInvalid
from runtime.model import Model
from service.app import create_app
from service.settings import Settings
from tests.model_folders import write_clip_scorer, write_denoiser, write_scorer
from tests.service.conftest import JPEG, PNG, Serve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scorer(tmp_path / "a")
    write_scorer(tmp_path / "b")
    return tmp_path


def tamper(folder: Path) -> None:
    with (folder / "autoencoder.onnx").open("ab") as file:
        file.write(b"\0")


def reload(client: httpx.Client) -> dict[str, Any]:
    return dict(client.post("/v1/models:reload").json())


def test_a_tampered_folder_is_named_and_stops_no_other(serve: Serve, folder: Path, jpeg: bytes) -> None:
    tamper(folder / "b")
    client = serve(folder)
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["models"]["a"]) == (503, "failed", "ok")
    assert "sha256" in ready.json()["models"]["b"]
    assert client.post("/v1/score", content=jpeg, headers=JPEG).json()["model"]["name"] == "a"
    refused = client.post("/v1/score?model=b", content=jpeg, headers=JPEG)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:clearwatch:problem:model-not-ready")
    assert client.get("/v1/models/b").status_code == 503
    assert "sha256" in client.get("/v1/models").json()["failed"]["b"]


def test_a_default_that_fails_is_missed_not_replaced(serve: Serve, folder: Path, jpeg: bytes) -> None:
    tamper(folder / "a")
    client = serve(folder)
    assert client.post("/v1/score", content=jpeg, headers=JPEG).status_code == 503


def test_defaults_json_names_the_default(serve: Serve, folder: Path, jpeg: bytes) -> None:
    (folder / "defaults.json").write_text(json.dumps({"score": "b", "encode": "nobody"}))
    client = serve(folder)
    assert client.get("/v1/models").json()["defaults"] == {"reconstruct": "a", "score": "b", "encode": "a"}
    assert client.post("/v1/score", content=jpeg, headers=JPEG).json()["model"]["name"] == "b"


@pytest.mark.parametrize("content", ["{", '{"paint": "a"}', "[]", '{"score": 1}'])
def test_defaults_that_make_no_sense_are_ignored(serve: Serve, folder: Path, content: str) -> None:
    (folder / "defaults.json").write_text(content)
    assert serve(folder).get("/v1/models").json()["defaults"]["score"] == "a"


def test_a_single_frame_model_is_the_default_before_a_clip_model(serve: Serve, folder: Path) -> None:
    write_clip_scorer(folder / "0-clips")
    assert serve(folder).get("/v1/models").json()["defaults"]["score"] == "a"


def test_without_any_model_the_start_stops_and_says_why(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "holds no folder"), (tmp_path / "none", "is no folder")):
        with pytest.raises(ModelFolderInvalid, match=f"{words}.*CLEARWATCH_MODELS_DIR"):
            create_app(Settings(models_dir=path))


def test_unknown_models_are_404_with_a_hint(serve: Serve, folder: Path, jpeg: bytes) -> None:
    write_scorer(folder / "corridor")
    client = serve(folder)
    reply = client.post("/v1/score?model=coridor", content=jpeg, headers=JPEG)
    assert (reply.status_code, reply.json()["type"]) == (404, "urn:clearwatch:problem:model-not-found")
    assert "Did you mean corridor?" in reply.json()["detail"]
    assert client.get("/v1/models/%2e%2e").status_code == 404
    nobody = client.post("/v1/denoise", content=jpeg, headers=JPEG)
    assert (nobody.status_code, "no model here can denoise" in nobody.json()["detail"]) == (422, True)


def test_the_manifest_is_served_with_what_runs_the_model(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    entry = client.get("/v1/models/a").json()
    assert entry in client.get("/v1/models").json()["models"]
    running = entry.pop("running")
    assert entry == json.loads((folder / "a" / "manifest.json").read_text())
    assert (running["device"], running["engine"], running["target"]) == ("cpu", "onnxruntime", "CPUExecutionProvider")
    assert running["trials"] == [{"device": "cpu", "milliseconds": None, "refused": ""}]
    assert client.get("/readyz").json()["running"]["a"] == "cpu"


def test_the_fastest_device_is_looked_for_and_named(serve: Serve, folder: Path) -> None:
    pytest.importorskip("openvino")
    client = serve(folder, device="auto")
    running = client.get("/v1/models/a").json()["running"]
    assert {trial["device"] for trial in running["trials"]} >= {"cpu", "openvino"}
    assert running["device"] == client.get("/readyz").json()["running"]["a"]
    assert f'device="{running["device"]}"' in client.get("/metrics").text


def test_reload_adds_removes_changes_and_keeps(serve: Serve, folder: Path) -> None:
    write_denoiser(folder / "old")
    client = serve(folder)
    shutil.rmtree(folder / "old")
    write_scorer(folder / "b", version="2")
    write_scorer(folder / "c")
    expected = {"added": ["c"], "removed": ["old"], "changed": ["b"], "kept": ["a"], "failed": {}}
    assert reload(client) == expected
    assert {model["name"]: model["version"] for model in client.get("/v1/models").json()["models"]} == {
        "a": "1",
        "b": "2",
        "c": "1",
    }
    assert client.get("/v1/models/old").status_code == 404
    assert reload(client) == expected | {"added": [], "removed": [], "changed": [], "kept": ["a", "b", "c"]}


def test_a_hidden_folder_waits_until_it_is_renamed(serve: Serve, folder: Path) -> None:
    client = serve(folder)
    write_scorer(folder / "c").rename(folder / ".copying")
    assert reload(client)["added"] == []
    (folder / ".copying").rename(folder / "c")
    assert reload(client)["added"] == ["c"]


def test_a_changed_folder_that_fails_keeps_its_old_form(serve: Serve, folder: Path, jpeg: bytes) -> None:
    client = serve(folder)
    write_scorer(folder / "b", version="2")
    tamper(folder / "b")
    reply = reload(client)
    assert reply["kept"] == ["a", "b"]
    assert "sha256" in str(reply["failed"])
    assert client.post("/v1/score?model=b", content=jpeg, headers=JPEG).json()["model"]["version"] == "1"
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert "the folder has changed" in ready.json()["models"]["b"]


def _away(manifest: Path) -> None:
    manifest.unlink()


def _dangling(manifest: Path) -> None:
    manifest.unlink()
    manifest.symlink_to("nowhere")


def _unreadable(manifest: Path) -> None:
    manifest.unlink()
    manifest.mkdir()


@pytest.mark.parametrize("spoil", [_away, _dangling, _unreadable])
def test_a_served_folder_whose_manifest_is_not_there_yet_keeps_its_old_form(
    serve: Serve, folder: Path, jpeg: bytes, spoil: Callable[[Path], None]
) -> None:
    client = serve(folder)
    spoil(folder / "b" / "manifest.json")
    reply = reload(client)
    assert (reply["removed"], reply["kept"]) == ([], ["a", "b"])
    assert "manifest.json: cannot be read" in str(reply["failed"])
    assert client.post("/v1/score?model=b", content=jpeg, headers=JPEG).status_code == 200
    assert "the folder has changed" in client.get("/readyz").json()["models"]["b"]
    spoil(folder / "a" / "manifest.json")
    assert reload(client)["kept"] == ["a", "b"]
    shutil.rmtree(folder / "b")
    assert reload(client)["removed"] == ["b"]


def test_a_served_link_to_a_folder_that_is_being_replaced_keeps_its_old_form(
    serve: Serve, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = write_scorer(tmp_path_factory.mktemp("made") / "c")
    (folder / "c").symlink_to(made)
    client = serve(folder)
    made.rename(made.with_name("old"))
    assert reload(client)["kept"] == ["a", "b", "c"]
    (folder / "c").unlink()
    assert reload(client)["removed"] == ["c"]


@pytest.mark.parametrize("content", ["{", '{"paint": "a"}'])
def test_defaults_that_make_no_sense_leave_the_old_ones_and_are_told(serve: Serve, folder: Path, content: str) -> None:
    defaults = folder / "defaults.json"
    defaults.write_text('{"score": "b"}')
    client = serve(folder)
    defaults.write_text(content)
    assert "it is ignored, the defaults stay: " in reload(client)["failed"]["defaults.json"]
    assert client.get("/v1/models").json()["defaults"]["score"] == "b"
    assert client.get("/v1/models").json()["failed"] == {}
    defaults.unlink()
    assert reload(client)["failed"] == {}
    assert client.get("/v1/models").json()["defaults"]["score"] == "a"


def test_a_folder_of_models_that_is_gone_changes_nothing(serve: Serve, folder: Path, jpeg: bytes) -> None:
    client = serve(folder)
    for name in ("a", "b"):
        shutil.rmtree(folder / name)
    assert client.post("/v1/models:reload").status_code == 503
    assert client.post("/v1/score", content=jpeg, headers=JPEG).status_code == 200


def test_reloading_under_load_loses_no_request(serve: Serve, folder: Path, png: bytes) -> None:
    client = serve(folder)
    stop = threading.Event()
    seen: list[tuple[int, str]] = []

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as mine:
            while not stop.is_set():
                reply = mine.post("/v1/score?model=b", content=png, headers=PNG)
                seen.append((reply.status_code, reply.json().get("model", {}).get("version")))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for version in ("1", "2", "3", "4"):
            if version > "1":
                write_scorer(folder / "new" / "b", version=version)
                shutil.rmtree(folder / "b")
                (folder / "new" / "b").rename(folder / "b")
                assert reload(client)["changed"] == ["b"]
            give_up = time.monotonic() + 20
            while (200, version) not in seen:
                assert time.monotonic() < give_up
                time.sleep(0.005)
        stop.set()
        for future in asking:
            future.result()
    assert {status for status, _ in seen} == {200}


def test_a_default_whose_folder_is_half_copied_goes_on_as_before(serve: Serve, folder: Path, jpeg: bytes) -> None:
    shutil.rmtree(folder / "b")
    client = serve(folder)
    manifest = folder / "a" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert list(reload(client)["failed"]) == ["a"]
    assert client.post("/v1/score", content=jpeg, headers=JPEG).json()["model"]["name"] == "a"


def test_a_model_that_has_failed_is_not_ready_until_it_is_opened_anew(
    serve: Serve, folder: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(folder)
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntimeSession, "run", _fail)
        refused = client.post("/v1/score?model=b", content=jpeg, headers=JPEG)
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:clearwatch:problem:model-not-ready")
    assert client.post("/v1/score?model=b", content=jpeg, headers=JPEG).status_code == 503
    assert client.post("/v1/score?model=a", content=jpeg, headers=JPEG).status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["models"]["a"]) == (503, "ok")
    assert "golden input" in ready.json()["models"]["b"]
    assert "golden input" in client.get("/v1/models").json()["failed"]["b"]
    assert "clearwatch_failed_models 1.0" in client.get("/metrics").text
    assert reload(client)["changed"] == ["b"]
    assert client.post("/v1/score?model=b", content=jpeg, headers=JPEG).status_code == 200
    assert client.get("/readyz").status_code == 200


def _fail(*_: object) -> None:
    raise RuntimeError("the driver is gone")


def test_a_folder_that_is_never_open_is_given_up_and_the_others_are_served(
    serve: Serve, folder: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, open_folder = threading.Event(), Model.open

    def hang(path: Path, device: Device) -> Model:
        assert path.name != "a" or released.wait(60)
        return open_folder(path, device)

    monkeypatch.setattr(Model, "open", hang)
    client = serve(folder, open_limit_s=2)
    ready = client.get("/readyz").json()["models"]
    assert "a: it was not open after 2 s" in ready["a"]
    assert ready["b"] == "ok"
    assert client.post("/v1/score?model=b", content=jpeg, headers=JPEG).status_code == 200
    released.set()
    assert reload(client)["added"] == ["a"]
    assert client.get("/readyz").status_code == 200
