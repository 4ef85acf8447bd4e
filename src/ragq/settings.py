"""All settings, read once from `RAGQ_*` variables and `.env`."""

from __future__ import annotations

import ipaddress
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from ragq.accounts.usage import read_prices
from ragq.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

LOCAL_EMBEDDING_MODEL = "all-MiniLM-L6-v2"
LOCALHOST = "localhost"
LEAST_KEY_CHARACTERS = 16  # of an API key, if the API listens beyond loopback


def _check_prices(text: str) -> str:
    try:
        read_prices(text)
    except msgspec.MsgspecError as error:
        raise ValueError(f"it is not JSON as in the description: {error}") from error
    return text


class Settings(BaseSettings):
    """Settings of every ragq process; each field is the variable `RAGQ_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="RAGQ_", env_file=".env", extra="ignore", frozen=True)

    # Where
    host: str = Field(
        "127.0.0.1",
        description="Address the API listens on. Beyond loopback, `RAGQ_API_KEY` of 16 characters or more is required.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on; 0 picks a free one.")
    max_connections: int = Field(
        0,
        ge=0,
        description="Most HTTP connections of an API process, at most half of its descriptors; more close the longest silent. 0: 4096.",
    )
    url: str = Field("http://127.0.0.1:8000", description="URL of the API for `ragq ask`, `ingest` and `status`.")
    public_url: str | None = Field(
        None,
        description="Address at which people open ragq's page (`https://ragq.example.com`), for the links in citations. "
        "Unset: `http://` with `RAGQ_HOST` and `RAGQ_PORT`.",
    )
    data_dir: Path = Field(Path(".ragq"), description="Folder of the embedded services and of uploaded files.")
    api_key: SecretStr | None = Field(
        None,
        description="The operator's key; every route with data then requires it, or one that `ragq keys` made. Beyond loopback "
        "it must have 16 characters or more.",
    )
    allowed_hosts: str = Field(
        "",
        description="Host names under which the API may be called, comma-separated, besides loopback's and `RAGQ_HOST`; "
        "`*.example.com` and `*` work. Unset: no others on loopback, any host beyond it.",
    )
    accept_any_model: bool = Field(
        False,
        description="Accept any name of a model, for clients whose own cannot be changed; the configured models are used.",
    )
    cors_origins: str = Field(
        "", description="Origins (`https://app.example.com`) whose pages may call the API, comma-separated."
    )
    valkey_url: SecretStr | None = Field(None, description="Valkey to use (`redis://`, `unix://`, …). Unset: embedded.")
    database_url: SecretStr | None = Field(None, description="PostgreSQL with pgvector to use. Unset: embedded.")
    database_pooled: bool = Field(
        False,
        description="PostgreSQL is behind a pooler, such as PgBouncer in transaction mode. Needs "
        "`RAGQ_DATABASE_DIRECT_URL`.",
    )
    database_read_url: SecretStr | None = Field(
        None, description="A read replica of that PostgreSQL, on which workers search while it is not behind."
    )
    database_direct_url: SecretStr | None = Field(
        None, description="Direct URL of that PostgreSQL, for migrations and for building the vector index."
    )
    blob_url: str | None = Field(
        None, description="Blob store for uploaded bytes (`file:///`, `s3://`, …). Unset: `files` in the data folder."
    )
    backup_key: SecretStr | None = Field(None, min_length=16, description="Encrypts backups; 16 characters or more.")
    log_format: Literal["console", "json"] = Field("console", description="Format of log lines on standard error.")
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address on which a worker shows its metrics to Prometheus, without a key: counts and times, no texts. "
        "`0.0.0.0`: on every interface; `GET /metrics/targets` names the one that leads to Valkey.",
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="Port for that; 0: free, see `GET /metrics/targets`.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")

    # Sign-in
    oidc_issuer: str | None = Field(
        None,
        description="OpenID provider at which people sign in to the page, as its tokens name it "
        "(`https://login.example.com/realms/acme`). Needs `RAGQ_API_KEY`. Unset: keys only.",
    )
    oidc_client_id: str = Field("", description="Id of ragq at the provider.")
    oidc_client_secret: SecretStr | None = Field(None, description="Its secret there; none for a public client.")
    oidc_scopes: str = Field("openid profile email", description="Scopes that are asked for, separated by spaces.")
    oidc_groups_claim: str = Field(
        "groups",
        min_length=1,
        description="Claim with a person's groups; dots lead into objects (`realm_access.roles`).",
    )
    oidc_roles: str = Field(
        "",
        description="What groups may do: `staff=acme:user, leads=acme:admin`, or a JSON object of the same. The group `*` is for those in "
        "no other of these.",
    )
    oidc_audience: str | None = Field(
        None, description="Audience of the provider's access tokens that the API takes as keys. Unset: none are taken."
    )
    oidc_session_seconds: int = Field(
        8 * 3600, ge=60, le=8 * 3600, description="Longest session of a person who has signed in."
    )

    # Queue
    key_prefix: str = Field(
        "ragq",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Prefix of our keys in Valkey. Stock RQ workers use `rq` and so do not see our jobs.",
    )
    query_concurrency: Count = Field(200, le=5000, description="Most questions in flight in one query worker.")
    document_concurrency: Count = Field(
        2, le=64, description="Most documents in flight in one document worker, and as many small ones (100 KB) again."
    )
    lease_seconds: Seconds = Field(8, le=600, description="A job whose worker is silent for this long runs again.")
    heartbeat_seconds: Seconds = Field(2, le=200, description="How often a worker renews the leases of its jobs.")
    shutdown_grace_seconds: float = Field(
        30, ge=0, description="How long jobs may finish after SIGTERM before they are handed back."
    )
    query_deadline_seconds: Seconds = Field(600, description="A question that is not answered within this time fails.")
    document_deadline_seconds: Seconds = Field(3600, description="A document not ingested within this time fails.")
    job_tries: Count = Field(5, description="A job fails after this many runs with transient errors.")
    quarantine_deaths: Count = Field(
        2, description="A job is quarantined after this many deaths of its worker while it ran alone."
    )
    result_ttl_seconds: int = Field(
        3600, ge=60, description="How long ended jobs stay in Valkey. After that, responses are read from the archive."
    )
    max_queued: int = Field(
        10_000, ge=0, description="A new job is refused with 429 if this many jobs wait ahead of it. 0: no limit."
    )
    max_queued_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Most bytes of unfinished jobs of 4 KB or more, in Valkey and the blob store; beyond, 429. 0: no limit.",
    )
    max_wait_seconds: float = Field(
        300, ge=0, description="A question with a longer estimated wait is refused with 429. 0: no limit."
    )
    response_retention_seconds: int = Field(
        30 * 86_400, ge=3600, description="How long the archive in PostgreSQL keeps a finished response."
    )
    audit_retention_seconds: int = Field(
        365 * 86_400,
        ge=3600,
        description="How long the audit log keeps an entry, unless its tenant has a time of its own.",
    )
    valkey_durability: Literal["checked", "vouched"] = Field(
        "checked",
        description="`checked`: refuse a Valkey whose settings could lose accepted jobs. `vouched`: Valkey forbids `CONFIG`, and "
        "you vouch that it keeps acknowledged writes.",
    )
    valkey_replicas: int = Field(
        0, ge=0, le=5, description="Replicas that must have a question, a claim and a result on disk before it counts."
    )
    allow_unsafe_valkey: bool = Field(
        False, description="Start even if Valkey could lose or evict accepted jobs; its settings are not checked."
    )

    # Batches
    batch_outstanding: Count = Field(200, le=5000, description="Most lines of one batch in the queue at once.")

    # Webhooks
    webhook_allowed_hosts: str = Field(
        "", description="Hosts that may have a private address and may be called without TLS, comma-separated."
    )
    webhook_timeout_seconds: Seconds = Field(10, le=60, description="Time limit of one attempt to deliver a webhook.")
    webhook_backoff_seconds: Seconds = Field(
        5,
        le=60,
        description="First wait after a failed attempt; the next five are 6, 24, 120, 720 and 4320 times as long.",
    )
    webhook_concurrency: Count = Field(50, le=1000, description="Most webhooks that one process sends at once.")
    webhook_endpoint_concurrency: Count = Field(
        8, le=100, description="Most webhooks that all processes together send to one endpoint at once."
    )

    # Answers
    llm_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint (`https://…/v1`). Unset: extractive answers, no LLM."
    )
    llm_api_key: SecretStr | None = Field(None, description="Key for that endpoint.")
    llm_model: str | None = Field(None, description="Model name; required with `RAGQ_LLM_BASE_URL`.")
    llm_extra_fields: str = Field(
        "",
        description="Further fields of requests that the LLM knows, comma-separated; ragq passes on the common ones anyway.",
    )
    llm_connect_timeout_seconds: Seconds = Field(5, description="Time limit for connecting to the LLM.")
    llm_first_token_timeout_seconds: Seconds = Field(
        120,
        description="Time limit for the first token; each sign of life of the server, such as a comment, starts it again.",
    )
    llm_token_gap_timeout_seconds: Seconds = Field(15, description="Time limit between two tokens.")
    llm_answer_timeout_seconds: Seconds = Field(300, description="Time limit for the whole answer.")
    llm_tries: Count = Field(3, le=10, description="A question fails after this many failed LLM calls.")
    llm_backoff_seconds: Seconds = Field(0.5, description="First wait after a failed call; doubles, with jitter.")
    llm_backoff_max_seconds: Seconds = Field(
        8, description="Longest wait after a failed call, unless the LLM asks for a longer one."
    )
    llm_breaker_calls: Count = Field(
        20,
        description="Least number of calls in the window before a breaker may open. It opens when half of them failed.",
    )
    llm_breaker_window_seconds: Seconds = Field(30, description="Length of a breaker's window.")
    llm_breaker_probe_seconds: Seconds = Field(5, description="How often an open breaker lets one call through.")
    judge: bool = Field(
        False, description="Ask the LLM, in a second call, whether the sources hold the statements of its answer."
    )
    prompt_tokens: int = Field(3000, ge=200, description="Budget for the sources in the prompt, in tokens.")
    max_results: int = Field(8, ge=1, le=50, description="Chunks retrieved; a quarter more for a task without an LLM.")
    meaning_weight: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Weight of the meaning in a result's score; the words have the rest. Fitted to MiniLM: a stronger model earns more.",
    )
    min_score: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Results with a lower score are left out, unless the request sets a `score_threshold`.",
    )
    max_question_characters: int = Field(
        10_000, ge=100, description="Longest text that is searched for; of a longer question, its beginning and end."
    )

    prices: Annotated[str, AfterValidator(_check_prices)] = Field(
        "",
        description="Prices of models for `ragq usage` and budgets, of a million tokens each, as JSON: "
        '`{"gpt-4o-mini": {"input": 0.15, "output": 0.6}}`. Models without a price cost nothing.',
    )

    # Reranking
    rerank_base_url: str | None = Field(
        None,
        description="Base of a `/rerank` endpoint (`https://…/v1`), which puts what a search found in order. Unset: none.",
    )
    rerank_api_key: SecretStr | None = Field(None, description="Key for that endpoint.")
    rerank_model: str | None = Field(None, description="Model name; required with `RAGQ_RERANK_BASE_URL`.")
    rerank_timeout_seconds: Seconds = Field(
        2, le=60, description="Time limit of one call to it; after that, the order of the search stays."
    )
    rerank_candidates: Count = Field(
        30,
        le=200,
        description="Chunks that are put in order, the best of the search; more only if a request wants more.",
    )

    # Documents
    embedding_base_url: str | None = Field(
        None, description="OpenAI-compatible endpoint for embeddings. Unset: MiniLM, local, without a network."
    )
    embedding_api_key: SecretStr | None = Field(None, description="Key for that endpoint.")
    embedding_model: str | None = Field(None, description="Model name; required with `RAGQ_EMBEDDING_BASE_URL`.")
    embedding_connect_timeout_seconds: Seconds = Field(5, description="Time limit for connecting to that endpoint.")
    embedding_timeout_seconds: Seconds = Field(60, description="Time limit of one call to it.")
    embedding_tries: Count = Field(
        8, le=20, description="A document fails after this many failed calls for the same texts."
    )
    embedding_backoff_seconds: Seconds = Field(0.5, description="First wait after a failed call; doubles, with jitter.")
    embedding_backoff_max_seconds: Seconds = Field(
        30, description="Longest wait after a failed call, unless the endpoint asks for a longer one."
    )
    embedding_dimensions: int = Field(384, ge=8, le=2000, description="Length of the model's vectors.")
    embedding_window_tokens: int = Field(256, ge=64, description="The model's context in tokens.")
    embedding_query_prefix: str = Field(
        "",
        description="Put before each question that a served model embeds: `query: ` with a space at the end for E5. Models that need "
        "none have none.",
    )
    embedding_document_prefix: str = Field(
        "",
        description="Put before each passage that a served model embeds: `passage: ` for E5. After a change, `ragq reembed`.",
    )
    embedding_floor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Cosine similarity that the model gives to texts that have nothing in common, from which the meaning's score "
        "counts: 0 for MiniLM, about 0.7 for multilingual E5.",
    )
    language: str = Field(
        "en",
        pattern=r"^[a-z]{2}$",
        description="Language, as an ISO 639-1 code, by whose rules words are cut to stems in a document whose own language cannot "
        "be told.",
    )
    synonyms: Path | None = Field(None, description="File of words that mean the same, one group a line.")
    max_file_bytes: int = Field(
        100_000_000, ge=1, description="Largest accepted file; its text may have as many characters."
    )
    parse_timeout_seconds: Seconds = Field(30, description="Time limit for reading one document, wall clock and CPU.")
    parse_memory_bytes: int = Field(1 << 30, ge=1 << 27, description="Memory limit of the reading process.")
    ocr_languages: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_,+ ]*$",
        description="Languages of scanned pages and pictures, as tesseract calls them (`eng+deu`). Unset: up to three of those that "
        "are installed.",
    )
    ocr_page_seconds: Seconds = Field(
        30,
        le=600,
        description="Time limit for OCR of one page. When it begins, `RAGQ_PARSE_TIMEOUT_SECONDS` is extended so that this time and 5 s "
        "are left, for a document by that of 2,000 pages in all.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  (pydantic's signature)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Strip every variable; a blank one, such as `RAGQ_API_KEY=` in a template, counts as unset."""
        for source in (env_settings, dotenv_settings):
            assert isinstance(source, EnvSettingsSource)
            found = {name: value.strip() for name, value in source.env_vars.items() if value}
            source.env_vars = {name: value for name, value in found.items() if value}
        return init_settings, env_settings, dotenv_settings

    @property
    def page_url(self) -> str:
        """Address of ragq's page, without a slash at its end, for links to passages."""
        host = LOCALHOST if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return (self.public_url or f"http://{shown}:{self.port}").rstrip("/")

    @property
    def embedding_name(self) -> str:
        """Name of the embedding model; a database is used with the model of its vectors only."""
        return self.embedding_model if self.embedding_base_url and self.embedding_model else LOCAL_EMBEDDING_MODEL

    @property
    def document_prefix(self) -> str:
        """What stands before each passage that is embedded; the local model needs nothing."""
        return self.embedding_document_prefix if self.embedding_base_url else ""


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
    for kind in ("llm", "embedding", "rerank"):
        if getattr(settings, f"{kind}_base_url") and not getattr(settings, f"{kind}_model"):
            name = f"RAGQ_{kind.upper()}"
            raise ConfigurationError(f"{name}_BASE_URL is set but {name}_MODEL is not: set it to the model's name.")
    if settings.database_pooled and settings.database_direct_url is None:
        raise ConfigurationError(
            "RAGQ_DATABASE_POOLED is set but RAGQ_DATABASE_DIRECT_URL is not: migrations and the vector index need "
            "a direct connection to PostgreSQL. Set it."
        )
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        raise ConfigurationError("RAGQ_HEARTBEAT_SECONDS must be at most half of RAGQ_LEASE_SECONDS.")
    return settings


def split_list(text: str) -> list[str]:
    """Split a comma-separated setting."""
    return [part for part in (part.strip() for part in text.split(",")) if part]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; the only name that counts is `localhost`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == LOCALHOST
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
