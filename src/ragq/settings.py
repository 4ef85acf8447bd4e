"""All settings, read once from `RAGQ_*` variables and `.env`."""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ragq.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

LOCAL_EMBEDDING_MODEL = "all-MiniLM-L6-v2"
LOCALHOST = "localhost"
LEAST_KEY_CHARACTERS = 16  # of an API key that is used beyond loopback
HOW_TO_MAKE_A_KEY = (
    "Make one with `openssl rand -hex 32` or `python3 -c 'import secrets; print(secrets.token_hex(32))'`."
)
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")


class Settings(BaseSettings):
    """Settings of every ragq process; each field is the variable `RAGQ_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="RAGQ_", env_file=".env", extra="ignore", frozen=True)

    # Where
    host: str = Field(
        "127.0.0.1",
        description="Address the API listens on. Beyond loopback it needs `RAGQ_API_KEY`, of 16 characters or more.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    max_connections: int = Field(
        0,
        ge=0,
        description="HTTP connections of one API process, at most half of its descriptors; beyond, the longest silent "
        "one is closed. 0: 4096.",
    )
    url: str = Field("http://127.0.0.1:8000", description="Where `ragq ask`, `ingest` and `status` find the API.")
    data_dir: Path = Field(Path(".ragq"), description="Folder of the embedded services and of uploaded files.")
    api_key: SecretStr | None = Field(
        None,
        description="When set, every route that touches data asks for this key. Beyond loopback it must have 16 characters.",
    )
    allowed_hosts: str = Field(
        "",
        description="Names, with commas between them, by which the API may be called, beside loopback's and `RAGQ_HOST`; "
        "`*.example.com` and `*` work. Unset: no others on loopback, any host beyond it.",
    )
    cors_origins: str = Field(
        "", description="Origins (`https://app.example.com`), with commas between them, whose pages may call the API."
    )
    valkey_url: SecretStr | None = Field(None, description="Valkey to use (`redis://`, `unix://`). Unset: embedded.")
    database_url: SecretStr | None = Field(None, description="PostgreSQL with pgvector to use. Unset: embedded.")
    database_pooled: bool = Field(
        False,
        description="PostgreSQL is behind a pooler, such as PgBouncer in transaction mode. Needs "
        "`RAGQ_DATABASE_DIRECT_URL`.",
    )
    database_direct_url: SecretStr | None = Field(
        None, description="PostgreSQL past that pooler, for migrations and for building the index of vectors."
    )
    blob_url: str | None = Field(
        None, description="Where uploaded bytes go (`file:///`, `s3://`, …). Unset: `files` in the data folder."
    )
    log_format: Literal["console", "json"] = Field("console", description="Format of log lines on standard error.")
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address on which a worker shows its metrics to Prometheus, without a key: counts and times, no texts. "
        "`0.0.0.0`: on every interface; `GET /metrics/targets` names the one that leads to Valkey.",
    )
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port for that; 0 takes a free one, which `GET /metrics/targets` tells."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")

    # Queue
    key_prefix: str = Field(
        "ragq",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Prefix of our keys in Valkey: stock RQ workers look under `rq` and see none of them.",
    )
    query_concurrency: Count = Field(200, le=5000, description="Questions one query worker holds in flight.")
    document_concurrency: Count = Field(
        2, le=64, description="Documents one document worker holds in flight, and as many small ones (100 KB) again."
    )
    lease_seconds: Seconds = Field(8, le=600, description="A job whose worker is silent this long starts again.")
    heartbeat_seconds: Seconds = Field(2, le=200, description="How often a worker renews the leases of its jobs.")
    shutdown_grace_seconds: float = Field(
        30, ge=0, description="After SIGTERM jobs may finish this long; then they are handed back."
    )
    query_deadline_seconds: Seconds = Field(600, description="A question unanswered after this has failed.")
    document_deadline_seconds: Seconds = Field(3600, description="A document not ingested after this has failed.")
    job_tries: Count = Field(5, description="Runs of a job whose errors are transient, before it fails.")
    quarantine_deaths: Count = Field(2, description="Process deaths while a job ran alone, before it is quarantined.")
    result_ttl_seconds: int = Field(
        3600, ge=60, description="How long ended jobs stay in Valkey; responses are read from the archive afterwards."
    )
    max_queued: int = Field(
        10_000, ge=0, description="Jobs that may wait ahead of a new one; more are refused with 429. 0: any number."
    )
    max_queued_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Bytes of unfinished jobs of 4 KB or more, in Valkey and the blob store, beyond which one gets 429. 0: any.",
    )
    max_wait_seconds: float = Field(
        300, ge=0, description="A question that would wait longer, by estimate, is refused with 429. 0: never."
    )
    response_retention_seconds: int = Field(
        30 * 86_400, ge=3600, description="How long the archive in PostgreSQL keeps a finished response."
    )
    valkey_durability: Literal["checked", "vouched"] = Field(
        "checked",
        description="`checked`: Valkey's settings are read, and one that could lose accepted jobs is refused. `vouched`: you "
        "vouch that it keeps what it has answered, since it forbids looking (`CONFIG`).",
    )
    allow_unsafe_valkey: bool = Field(
        False, description="Start although Valkey could lose or evict accepted jobs: nothing of it is checked."
    )

    # Batches
    batch_outstanding: Count = Field(200, le=5000, description="Lines of one batch that are in the queue at once.")

    # Webhooks
    webhook_allowed_hosts: str = Field(
        "", description="Hosts, with commas between them, that may be inside and be sent to without TLS."
    )
    webhook_timeout_seconds: Seconds = Field(10, le=60, description="Limit on one attempt to deliver a webhook.")
    webhook_backoff_seconds: Seconds = Field(
        5,
        le=60,
        description="First wait after a failed attempt; the next five are 6, 24, 120, 720 and 4320 times as long.",
    )
    webhook_concurrency: Count = Field(50, le=1000, description="Webhooks that one process sends at once.")
    webhook_endpoint_concurrency: Count = Field(
        8, le=100, description="Webhooks that all processes send to one endpoint at once."
    )

    # Answers
    llm_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint (`https://…/v1`). Unset: extractive answers, no LLM."
    )
    llm_api_key: SecretStr | None = Field(None, description="Key for that endpoint.")
    llm_model: str | None = Field(None, description="Model to ask for; needed with `RAGQ_LLM_BASE_URL`.")
    llm_connect_timeout_seconds: Seconds = Field(5, description="Limit on connecting to the LLM.")
    llm_first_token_timeout_seconds: Seconds = Field(30, description="Limit on waiting for the first token.")
    llm_token_gap_timeout_seconds: Seconds = Field(15, description="Limit on the gap between two tokens.")
    llm_answer_timeout_seconds: Seconds = Field(120, description="Limit on the whole answer.")
    llm_tries: Count = Field(3, le=10, description="Tries of a question whose LLM call failed, before it fails.")
    llm_backoff_seconds: Seconds = Field(0.5, description="First wait of such a question; doubles, with jitter.")
    llm_backoff_max_seconds: Seconds = Field(8, description="Longest such wait, unless the LLM asks for a longer one.")
    llm_breaker_calls: Count = Field(
        20,
        description="Least number of calls in the window before a breaker may open. It opens when half of them failed.",
    )
    llm_breaker_window_seconds: Seconds = Field(30, description="Length of a breaker's window.")
    llm_breaker_probe_seconds: Seconds = Field(5, description="How often an open breaker lets one call through.")
    prompt_tokens: int = Field(3000, ge=200, description="Budget for the sources in the prompt, in tokens.")
    max_results: int = Field(8, ge=1, le=50, description="Chunks retrieved for a question that names no number.")
    max_question_characters: int = Field(10_000, ge=1, description="Longest question taken.")

    # Documents
    embedding_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint for embeddings. Unset: MiniLM, here, no network."
    )
    embedding_api_key: SecretStr | None = Field(None, description="Key for that endpoint.")
    embedding_model: str | None = Field(None, description="Model; needed with `RAGQ_EMBEDDING_BASE_URL`.")
    embedding_connect_timeout_seconds: Seconds = Field(5, description="Limit on connecting to that endpoint.")
    embedding_timeout_seconds: Seconds = Field(60, description="Limit on one call of it.")
    embedding_tries: Count = Field(8, le=20, description="Calls for the same texts that fail, before the job fails.")
    embedding_backoff_seconds: Seconds = Field(0.5, description="First wait after such a call; doubles, with jitter.")
    embedding_backoff_max_seconds: Seconds = Field(
        30, description="Longest such wait, unless the endpoint asks for a longer one."
    )
    embedding_dimensions: int = Field(384, ge=8, le=2000, description="Length of the model's vectors.")
    embedding_window_tokens: int = Field(256, ge=64, description="Tokens the model reads at once.")
    text_search_config: str = Field(
        "english", pattern=r"^[a-z_]+$", description="PostgreSQL text search configuration for the full text."
    )
    max_file_bytes: int = Field(
        100_000_000, ge=1, description="Largest file taken; its text may have as many characters."
    )
    parse_timeout_seconds: Seconds = Field(30, description="Limit on reading one document, wall clock and CPU.")
    parse_memory_bytes: int = Field(1 << 30, ge=1 << 27, description="Memory limit of the reading process.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic's signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Strip every variable; a blank one, like `RAGQ_API_KEY=` in a template, counts as unset."""
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            found = {name: value.strip() for name, value in source.env_vars.items() if value}
            source.env_vars = {name: value for name, value in found.items() if value}
        return init_settings, env_settings, dotenv_settings

    @property
    def embedding_name(self) -> str:
        """Name of the embedding model, which a database is bound to."""
        return self.embedding_model if self.embedding_base_url and self.embedding_model else LOCAL_EMBEDDING_MODEL


@cache
def read_settings() -> Settings:
    """Read the settings from the environment, once.

    Raises:
        ConfigurationError: A value is missing, malformed or out of range; the message names each variable.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        faults = "; ".join(f"RAGQ_{fault['loc'][0]!s}".upper() + f": {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"Wrong settings. {faults}") from error
    if settings.llm_base_url and not settings.llm_model:
        raise ConfigurationError("RAGQ_LLM_BASE_URL is set but RAGQ_LLM_MODEL is not: name the model to ask for.")
    if settings.embedding_base_url and not settings.embedding_model:
        raise ConfigurationError("RAGQ_EMBEDDING_BASE_URL is set but RAGQ_EMBEDDING_MODEL is not: name the model.")
    if settings.database_pooled and settings.database_direct_url is None:
        raise ConfigurationError(
            "RAGQ_DATABASE_POOLED is set but RAGQ_DATABASE_DIRECT_URL is not: migrations and the index of vectors need "
            "PostgreSQL itself. Name it there."
        )
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        raise ConfigurationError("RAGQ_HEARTBEAT_SECONDS must be at most half of RAGQ_LEASE_SECONDS.")
    return settings


def split_list(text: str) -> list[str]:
    """Split a setting that is a list with commas."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; of names, only `localhost` counts."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == LOCALHOST
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def check_exposure(settings: Settings) -> None:
    """Refuse settings under which strangers could use the API.

    Raises:
        ConfigurationError: `RAGQ_HOST` is not a loopback address and `RAGQ_API_KEY` is not set or too short, or
            `RAGQ_CORS_ORIGINS` has something that is not an origin.
    """
    for origin in split_list(settings.cors_origins):
        if not ORIGIN.fullmatch(origin):
            raise ConfigurationError(
                f"RAGQ_CORS_ORIGINS: '{origin}' is not an origin. Name each one as browsers send it: scheme, host and "
                "port, such as https://app.example.com, in lower case and without a path."
            )
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        raise ConfigurationError(
            f"RAGQ_API_KEY has characters that a header cannot carry: use ASCII, without spaces around it. {HOW_TO_MAKE_A_KEY}"
        )
    if is_loopback(settings.host):
        return
    if settings.api_key is None:
        raise ConfigurationError(
            f"Listening on {settings.host} would let anyone read the documents: set RAGQ_API_KEY, or listen on "
            f"127.0.0.1. {HOW_TO_MAKE_A_KEY}"
        )
    if len(key) < LEAST_KEY_CHARACTERS:
        raise ConfigurationError(
            f"RAGQ_API_KEY is shorter than {LEAST_KEY_CHARACTERS} characters, which can be guessed: listening on "
            f"{settings.host} needs a longer one. {HOW_TO_MAKE_A_KEY}"
        )
