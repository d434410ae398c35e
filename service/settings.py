"""Every setting of the service, and the only place that reads the environment."""

import difflib
import os
import re
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from dotenv import dotenv_values
from pydantic import Field, SecretStr, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime.devices import DeviceChoice
from service.tokens import Keyring, Token, read_tokens

PREFIX = "CLEARWATCH_"
ENV_FILE = Path(".env")
MIN_TOKEN_CHARACTERS = 8
ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")

MiB = 2**20


class SettingsError(Exception):
    """A setting is wrong: one sentence that names it and says the cure."""


class LogLevel(StrEnum):
    """From the most to the least talkative."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Settings(BaseSettings):
    """What an operator decides. Facts about a model are in its manifest, never here."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", allow_inf_nan=False
    )

    host: Annotated[str, StringConstraints(min_length=1)] = Field(
        "127.0.0.1", description="Address to listen on; anything but loopback needs a token."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None, description="Bearer token that callers of /v1 and /metrics must send; 8 characters or more."
    )
    token_file: Path | None = Field(None, description="File that holds the token, for Docker and Kubernetes secrets.")
    tokens_file: Path | None = Field(
        None, description="File of hashed tokens with scopes, one a line; python -m service.tokens makes them."
    )
    allow_anonymous: bool = Field(
        default=False, description="Listen beyond loopback without a token: only behind a proxy that asks for one."
    )
    cors_origins: str | None = Field(
        None, description="Web pages whose scripts may call, as https://host, separated by commas; none by default."
    )
    models_dir: Path = Field(Path("models"), description="Folder of model folders.")
    calibrations_dir: Path | None = Field(
        None, description="Folder of the cameras' calibrations, written to; absent: calibrations in the models' folder."
    )
    device: DeviceChoice = Field(
        DeviceChoice.AUTO,
        description="auto, cpu, cuda, openvino or openvino-bf16; auto takes CUDA where it is, else the fastest for "
        "each model; one that is named and not there stops the start.",
    )
    cpu_fallback: bool = Field(
        default=False, description="Compute on the CPU what a GPU has no memory for; else it is 503 out-of-memory."
    )
    workers: int | None = Field(
        None, ge=1, le=256, description="Frames computed at once; absent: one a usable core, or 2 on a GPU."
    )
    queue_capacity: int = Field(
        64, ge=1, le=100_000, description="Requests accepted at once; more are refused with 503 and Retry-After."
    )
    max_connections: int = Field(
        4096, ge=1, le=1_000_000, description="Connections open at once; then the longest idle one is closed."
    )
    deadline_s: float = Field(
        10, gt=0, le=3600, description="Seconds an accepted request may wait for its first computation before 504."
    )
    refusal_delay_s: float = Field(
        1,
        ge=0,
        le=10,
        description="Seconds a 503 for lack of capacity is held back once there are many, against clients that retry "
        "at once.",
    )
    step_limit_s: float = Field(
        60,
        gt=0,
        le=3600,
        description="Seconds one step of a request may compute before its worker is replaced, and its model too where "
        "that hangs.",
    )
    open_limit_s: float = Field(
        300,
        gt=0,
        le=3600,
        description="Seconds a model folder may take to be opened and verified before it is given up.",
    )
    upload_timeout_s: float = Field(
        30, gt=0, le=3600, description="Seconds the body of a request may take to arrive before 408."
    )
    max_image_bytes: int = Field(48 * MiB, ge=1024, le=1024 * MiB, description="Bytes of one encoded image.")
    max_image_pixels: int = Field(64_000_000, ge=1024, le=1_000_000_000, description="Pixels of one decoded image.")
    max_batch_images: int = Field(32, ge=1, le=1024, description="Images in one request.")
    max_calibration_images: int = Field(2048, ge=1, le=100_000, description="Images in one request that calibrates.")
    max_request_bytes: int = Field(64 * MiB, ge=1024, le=4096 * MiB, description="Bytes of one request's body.")
    max_held_bytes: int = Field(
        256 * MiB, ge=1024, le=2**40, description="Bytes of all bodies held at once; more are refused with 503."
    )
    tile_pixels: int = Field(
        1_500_000, ge=4096, le=1_000_000_000, description="Pixels of a tile; larger frames are denoised in tiles."
    )
    max_cameras: int = Field(
        256, ge=1, le=100_000, description="Cameras whose last frames are kept; then the longest silent is forgotten."
    )
    camera_idle_s: float = Field(3600, gt=0, le=604_800, description="Seconds of silence after which one is forgotten.")
    kept_scores: int = Field(
        20_000, ge=0, le=10_000_000, description="Last scores kept of a camera for each model, to calibrate from."
    )
    grace_period_s: int = Field(
        20, ge=1, le=3600, description="Seconds to finish accepted requests in after SIGTERM or Ctrl-C."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info, warning or error.")

    @model_validator(mode="after")
    def _is_safe(self) -> "Settings":
        if self.token is not None and self.token_file is not None:
            raise ValueError(f"give {PREFIX}TOKEN or {PREFIX}TOKEN_FILE, not both")
        token = self.bearer_token()
        if token is not None and (len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable()):
            raise ValueError(f"the token must have at least {MIN_TOKEN_CHARACTERS} printable ASCII characters")
        if self.keyring().is_open and not self.allow_anonymous and not _is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}HOST={self.host} lets other machines in, so a token is needed: set {PREFIX}TOKEN, "
                f"{PREFIX}TOKEN_FILE or {PREFIX}TOKENS_FILE, or set {PREFIX}ALLOW_ANONYMOUS=true if a proxy in front "
                "asks for one"
            )
        return self

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: str | None) -> str | None:
        for origin in _listed(value):
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin} is no origin; write it as https://host or https://host:port")
        return value

    def allowed_origins(self) -> list[str]:
        """Return the origins of the pages whose scripts may call."""
        return _listed(self.cors_origins)

    def keyring(self) -> Keyring:
        """Return the tokens that open the service: the one that opens everything, and those of the file."""
        secret = self.bearer_token()
        tokens = [] if secret is None else [Token.of(secret, "token")]
        return Keyring([*tokens, *(read_tokens(self.tokens_file) if self.tokens_file is not None else ())])

    def bearer_token(self) -> str | None:
        """Return the token, read from its file where there is one; without spaces around it, which no header keeps."""
        if self.token_file is None:
            return None if self.token is None else self.token.get_secret_value().strip()
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{PREFIX}TOKEN_FILE={self.token_file} cannot be read: {error}") from error


def _listed(value: str | None) -> list[str]:
    return [part.strip() for part in (value or "").split(",") if part.strip()]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + field.upper()


def load_settings(env_file: Path = ENV_FILE) -> Settings:
    """Read the settings: the environment first, then `.env` in the working directory, then the defaults.

    Raises SettingsError, also for a CLEARWATCH_* variable that no setting has: a typo is never ignored.
    """
    known = [variable(field) for field in Settings.model_fields]
    try:
        stated = dotenv_values(env_file)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file} cannot be read: {error}") from error
    for name in (*os.environ, *stated):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(_unknown(name, known))
    try:
        return Settings(_env_file=env_file)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
    return f"{name} is no setting; did you mean {near[0]}? `python -m service --help` lists them all"


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        if not item["loc"]:
            parts.append(message)
            continue
        field = str(item["loc"][0])
        shown = "" if "token" in field else f"={item['input']}"
        parts.append(f"{variable(field)}{shown}: {message}")
    return "; ".join(parts)
