"""Structured logs on standard error and in the files of `ragq logs`, our own lines and those of libraries."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from ragq.settings import Settings
from ragq.tracing import add_ids

FILE_BYTES = 10_000_000  # of a log file, and of the one before, which is kept beside it as `.log.1`
SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    add_ids,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
AS_JSON: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
)


class _LogFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Do nothing when a disk is full: standard error has the line."""


def configure_logging(settings: Settings) -> None:
    """Use the format and level of the settings for every log line of this process."""
    as_text = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        exception_formatter=structlog.dev.plain_traceback,  # the default prints local variables, including keys
    )
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(AS_JSON if settings.log_format == "json" else (as_text,)))
    logging.root.handlers = [handler, *_log_files()]
    logging.root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "rq.worker", "rq.job"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
        library.setLevel(logging.WARNING if name in ("uvicorn.access", "rq.worker", "rq.job") else logging.NOTSET)


def log_to(path: Path) -> None:
    """Write the log lines of this process to a file, too, as JSON; no longer to the one of an earlier call."""
    for earlier in _log_files():
        logging.root.removeHandler(earlier)
        earlier.close()
    handler = _LogFile(path, maxBytes=FILE_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(_formatter(AS_JSON))
    logging.root.addHandler(handler)


def _formatter(render: tuple[structlog.typing.Processor, ...]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=SHARED, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
    )


def _log_files() -> list[_LogFile]:
    return [handler for handler in logging.root.handlers if isinstance(handler, _LogFile)]
