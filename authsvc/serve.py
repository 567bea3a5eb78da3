"""Runs the service under gunicorn: the arbiter prepares, each worker opens its own database and policy."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication

from authsvc import first_start, logs
from authsvc.errors import SettingsError

if TYPE_CHECKING:
    from authsvc.background import Background
    from authsvc.front import Front
    from authsvc.settings import Settings

log = structlog.get_logger()

# A broker keeps one connection for as long as it lives and does not try again when it finds it closed.
_KEEP_ALIVE_SECONDS = 7 * 24 * 3600


def check(settings: Settings) -> None:
    """Raise `SettingsError` if serving with these settings would be unsafe."""
    if not settings.binds_loopback_only and not settings.webhook_secret:
        raise SettingsError(
            f"AUTHSVC_WEBHOOK_SECRET must be set to listen on {settings.bind}: "
            "without it anybody who reaches that address could try passwords at the webhooks"
        )


def run(settings: Settings) -> None:
    """Serve until told to stop; the database must have been prepared."""
    directory = settings.data_dir / "metrics"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    # prometheus_client reads this when it is imported, which the workers do.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    logs.configure(settings.log_level)
    _Gunicorn(settings).run()


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._background: list[Background] = []
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "bind": settings.bind,
            "worker_class": "asgi",
            "workers": settings.workers,
            "keepalive": _KEEP_ALIVE_SECONDS,
            # Requests are short; what else is open at the end are brokers' idle connections.
            "graceful_timeout": 2,
            "proc_name": "authsvc",
            "control_socket_disable": True,
            "logger_class": logs.GunicornLogger,
            "worker_exit": self._stop_worker,
            "child_exit": _forget_worker,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Front:
        """Make the app; gunicorn calls this in each worker, after the fork."""
        from authsvc.app import BACKGROUND, create_app
        from authsvc.edge import EXTENSION
        from authsvc.front import Front

        first_start.open_database(self._settings)
        app = create_app(self._settings)
        self._background = app.extensions[BACKGROUND]
        for thread in self._background:
            thread.start()
        return Front(app.extensions[EXTENSION].webhooks, app, self._settings.threads)

    def _stop_worker(self, _arbiter: object, _worker: object) -> None:
        for thread in self._background:
            thread.stop()


def _forget_worker(_arbiter: object, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
