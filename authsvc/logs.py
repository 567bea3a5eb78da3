"""Logs: one JSON object a line on standard error, from this service and from gunicorn alike."""

from __future__ import annotations

import logging
import logging.config
import re
from typing import Any

import structlog

# gunicorn quotes the address of a request that broke, as it came.
_SECRETS_IN_ADDRESSES = re.compile(r"\b(apiToken|key)=[^&\s'\"]+", re.IGNORECASE)


def _without_secrets(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    event["event"] = _SECRETS_IN_ADDRESSES.sub(r"\1=...", str(event["event"]))
    return event


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    _without_secrets,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]


def logging_config(level: str) -> dict[str, Any]:
    """Return the standard library's logging configuration, which gunicorn takes as well."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    structlog.processors.JSONRenderer(),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), "handlers": ["stderr"], "propagate": False},
            # gunicorn's access log would write addresses as they came, tokens included; ours does not.
            "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
        },
    }


def configure(level: str) -> None:
    """Send everything that is logged to standard error as JSON."""
    logging.config.dictConfig(logging_config(level))
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
