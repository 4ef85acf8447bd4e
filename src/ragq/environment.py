"""Join a running ragq: complete the settings, and make the environment of a worker."""

from __future__ import annotations

from pydantic import SecretStr

from ragq.embedded.services import read_services
from ragq.errors import ConfigurationError
from ragq.settings import Settings


def join_services(settings: Settings) -> Settings:
    """Complete missing addresses with those of the `ragq up` that runs in the data folder.

    Raises:
        ConfigurationError: No `ragq up` runs there.
    """
    missing = [name for name in ("valkey_url", "database_url") if getattr(settings, name) is None]
    if not missing:
        return settings
    services = read_services(settings.data_dir)
    found = {name: getattr(services, name) for name in missing}
    if None in found.values():
        raise ConfigurationError("Set RAGQ_VALKEY_URL and RAGQ_DATABASE_URL here too, as for `ragq up`.")
    return settings.model_copy(update={name: SecretStr(url) for name, url in found.items()})


def worker_variables(settings: Settings) -> dict[str, str]:
    """The environment variables with which a bare `rq worker` or `rq info` works on our queues."""
    assert settings.valkey_url
    assert settings.database_url
    valkey_url = settings.valkey_url.get_secret_value()
    # RQ asks Sentinels that `ragq.queues` names, not a URL.
    url = {} if "+sentinel:" in valkey_url.partition("//")[0] else {"RQ_REDIS_URL": valkey_url}
    return {
        **url,
        "RQ_KEY_PREFIX": settings.key_prefix,
        "RQ_WORKER_CLASS": "ragq.queues.async_worker.AsyncWorker",
        "RQ_CONFIG": "ragq.queues",
        "RAGQ_KEY_PREFIX": settings.key_prefix,
        "RAGQ_VALKEY_URL": valkey_url,
        "RAGQ_DATABASE_URL": settings.database_url.get_secret_value(),
        "RAGQ_DATA_DIR": str(settings.data_dir.resolve()),
    }
