"""Logs: one JSON object a line on standard error, from this service and from gunicorn alike."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.glogging import Logger

from authsvc.observability.redaction import without_secrets

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    # gunicorn quotes the address of a request that broke, as it came; and a path may hold a token.
    return {name: without_secrets(value) if isinstance(value, str) else value for name, value in event.items()}


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]


def configure(level: str) -> None:
    """Send everything that is logged to standard error as JSON."""
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
    # At debug it logs every statement with its values, password hashes among them.
    logging.getLogger("peewee").setLevel(logging.WARNING)
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


class GunicornLogger(Logger):  # type: ignore[misc]
    """gunicorn's own messages, in our form; and no access log, which would cost a broker time and quote tokens."""

    def setup(self, cfg: Any) -> None:
        """Let everything go where the root logger sends it."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.NOTSET)
