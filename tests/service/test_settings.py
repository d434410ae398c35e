"""Settings: every mistake stops the start, names the variable and says the cure."""

from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, load_settings
from service.tokens import Scope, Token

NO_FILE = Path("no such .env")


def load(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(f"CLEARWATCH_{name}", value)
    return load_settings(NO_FILE)


def test_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8000, None)


def test_the_environment_is_read_and_empty_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, PORT="9000", TOKEN="", DEVICE="cpu", MODELS_DIR="/m", WORKERS="")
    assert (settings.port, settings.token, settings.models_dir, settings.workers) == (9000, None, Path("/m"), None)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PROT": "1"}, "CLEARWATCH_PROT is no setting; did you mean CLEARWATCH_PORT"),
        ({"QUEUE_SIZE": "1"}, "CLEARWATCH_QUEUE_CAPACITY"),
        ({"PORT": "70000"}, "CLEARWATCH_PORT=70000: .*65535"),
        ({"PORT": "x"}, "CLEARWATCH_PORT=x"),
        ({"DEADLINE_S": "nan"}, "CLEARWATCH_DEADLINE_S"),
        ({"DEVICE": "tpu"}, "CLEARWATCH_DEVICE=tpu: .*'cuda'"),
        ({"HOST": "::"}, "CLEARWATCH_HOST=:: .*CLEARWATCH_TOKEN"),
        ({"HOST": "cameras.lan"}, "CLEARWATCH_TOKEN"),
        ({"TOKEN": "short"}, "at least 8"),
        ({"TOKEN": "long enough", "TOKEN_FILE": "x"}, "not both"),
        ({"TOKEN_FILE": "/nonexistent"}, "CLEARWATCH_TOKEN_FILE=/nonexistent cannot be read"),
    ],
)
def test_mistakes_stop_the_start(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as refusal:
        load(monkeypatch, **environment)
    assert "\n" not in str(refusal.value)
    assert "short" not in str(refusal.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load(monkeypatch, HOST=host).host == host


def test_beyond_loopback_with_a_token_or_knowingly_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, HOST="0.0.0.0", ALLOW_ANONYMOUS="true").token is None  # noqa: S104
    assert load(monkeypatch, HOST="0.0.0.0", TOKEN="long enough").bearer_token() == "long enough"  # noqa: S104, S106


def test_a_token_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    settings = load(monkeypatch, HOST="::", TOKEN_FILE=str(tmp_path / "token"))
    assert settings.bearer_token() == "from a file"


def test_spaces_around_a_token_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, TOKEN=" long enough\t")  # noqa: S106
    assert settings.bearer_token() == "long enough"
    assert settings.keyring().find(b"long enough") is not None
    with pytest.raises(SettingsError, match="at least 8"):
        load(monkeypatch, TOKEN=" seven77 ")  # noqa: S106


@pytest.mark.parametrize("content", [b"CLEARWATCH_TOKEN=gr\xfc\xdfe und mehr\n", b"\xff\xfeC\0L\0"])
def test_an_env_file_that_is_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError, match=r"\.env cannot be read: .*utf-8") as refusal:
        load_settings(tmp_path / ".env")
    assert "\n" not in str(refusal.value)


def test_an_env_file_stands_behind_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLEARWATCH_PORT=1\nCLEARWATCH_LOG_LEVEL=debug\nOTHER=x\n")
    monkeypatch.setenv("CLEARWATCH_PORT", "2")
    settings = load_settings(tmp_path / ".env")
    assert (settings.port, settings.log_level) == (2, "debug")
    (tmp_path / ".env").write_text("CLEARWATCH_PROT=1\n")
    with pytest.raises(SettingsError, match="CLEARWATCH_PROT"):
        load_settings(tmp_path / ".env")


def test_the_token_is_not_shown() -> None:
    assert "long enough" not in repr(Settings.model_validate({"token": "long enough"}))


def test_tokens_with_scopes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = Token.of("a secret of a camera", "door", [Scope.SCORE])
    (tmp_path / "tokens").write_text(token.model_dump_json())
    settings = load(monkeypatch, HOST="::", TOKENS_FILE=str(tmp_path / "tokens"))
    assert settings.keyring().find(b"a secret of a camera") == token
    both = load(monkeypatch, HOST="::", TOKENS_FILE=str(tmp_path / "tokens"), TOKEN="long enough")  # noqa: S106
    everything = both.keyring().find(b"long enough")
    assert everything is not None
    assert everything.scopes == set(Scope)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(monkeypatch, TOKENS_FILE=str(tmp_path / "nowhere"))


def test_origins_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).allowed_origins() == []
    found = load(monkeypatch, CORS_ORIGINS="https://a.example, http://localhost:3000").allowed_origins()
    assert found == ["https://a.example", "http://localhost:3000"]
    for wrong in ("*", "a.example", "https://a.example/page"):
        with pytest.raises(SettingsError, match="is no origin"):
            load(monkeypatch, CORS_ORIGINS=wrong)
