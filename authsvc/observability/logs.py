"""Logs of this service and of gunicorn: one JSON object per line on standard error."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.glogging import Logger

from authsvc.observability.redaction import without_secrets

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    # gunicorn logs the URL of a failed request unchanged, and a path may contain a token.
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in event.items()}


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]


def configure(level: str) -> None:
    """Log everything from this level on to standard error as JSON."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _redact,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # At level debug, peewee logs each statement with its values, such as password hashes.
    logging.getLogger("peewee").setLevel(logging.WARNING)
    # urllib3 logs the URLs of webhooks, which may contain a secret.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def trace_locations(error: Exception) -> list[str]:
    """Return the last 8 traceback locations of an error; its message might contain a secret."""
    # The lines of source are not looked up, since only the locations are logged.
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)[-8:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class GunicornLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages as JSON, without an access log, which would slow down webhooks and contain tokens."""

    def setup(self, cfg: Any) -> None:
        """Send gunicorn's messages to the root logger."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)
