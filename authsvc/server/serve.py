"""Runs the service under gunicorn: the arbiter prepares, each worker opens its own database and policy."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication

from authsvc.accounts import bootstrap
from authsvc.errors import SettingsError
from authsvc.observability import logs
from authsvc.server.connection_limits import ConnectionLimits, most_connections, raise_descriptor_limit
from authsvc.server.workers import Kind, Worker, hand_over_pair, missing
from authsvc.storage.propagation import Propagation

if TYPE_CHECKING:
    from authsvc.broker.asgi import BrokerApplication
    from authsvc.settings import Settings
    from authsvc.storage.background import BackgroundThread

log = structlog.get_logger()

# With few users policy is loaded by then, and nobody sees a worker without it.
_LOADED_WITHIN_SECONDS = 5.0
# So that a device which has logged in before a restart is known after it.
_CLIENT_IDS_WITHIN_SECONDS = 5.0
# A broker keeps one connection for as long as it lives and does not try again when it finds it closed.
_KEEP_ALIVE_SECONDS = 7 * 24 * 3600
# Work in the background that a worker for brokers leaves to others: signing a long revocation list takes its time, and
# so does a broker that does not answer.
_LEFT_TO_OTHERS = ("certificates", "sessions")


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
    # prometheus_client reads this when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # Here, so that no worker has to: one that takes another's place is there in a moment.
    importlib.import_module("authsvc.app")
    logs.configure(settings.log_level)
    if settings.ca_key_passphrase is None:
        log.warning(
            "the key of the certificate authority is stored without encryption",
            advice="set AUTHSVC_CA_KEY_PASSPHRASE, and the next start encrypts it",
        )
    raise_descriptor_limit()
    _Gunicorn(settings).run()


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """What all workers share is made here, before they are forked."""

    _worker: Worker

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._wanted = {Kind.BROKERS: settings.workers, Kind.API: settings.api_workers}
        self._giving, self._taking = hand_over_pair()
        self._propagation = Propagation(settings.workers)
        self._background: list[BackgroundThread] = []
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "bind": settings.bind,
            "worker_class": Worker,
            "workers": sum(self._wanted.values()),
            "keepalive": _KEEP_ALIVE_SECONDS,
            # Requests are short; what else is open at the end are brokers' idle connections.
            "graceful_timeout": 2,
            "proc_name": "authsvc",
            "control_socket_disable": True,
            "logger_class": logs.GunicornLogger,
            "pre_fork": self._assign,
            "post_fork": self._settle_in,
            "worker_exit": self._stop_worker,
            "child_exit": _forget_worker,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> BrokerApplication:
        """Make the app; gunicorn calls this in each worker, after the fork."""
        from authsvc.app import BACKGROUND, create_app
        from authsvc.broker.asgi import BrokerApplication
        from authsvc.web.request_context import EXTENSION

        bootstrap.open_database(self._settings)
        app = create_app(self._settings, self._propagation)
        answers_brokers = self._worker.kind is Kind.BROKERS
        left_to_others = _LEFT_TO_OTHERS if answers_brokers else ()
        self._background = [thread for thread in app.extensions[BACKGROUND] if thread.name not in left_to_others]
        policy, client_ids, *_ = self._background
        for thread in self._background:
            thread.start()
        if not policy.wait_until_ready(within=_LOADED_WITHIN_SECONDS):
            # gunicorn kills a worker that takes long to come up, and the next one would take as long.
            log.warning("policy is still loading; until it is there, /readyz answers 503 and brokers are refused")
        elif not client_ids.wait_until_ready(within=_CLIENT_IDS_WITHIN_SECONDS):
            log.warning("client ids are still loading; until they are there, devices count as unknown")
        services = app.extensions[EXTENSION]
        if answers_brokers:
            self._propagation.listen(self._worker.place, services.policy.catch_up)
        return BrokerApplication(services.webhooks, app, self._settings.threads)

    def _assign(self, arbiter: Any, worker: Worker) -> None:
        """Say what the next worker is to be: of the kind, and in the place, that a worker which died has left."""
        living = arbiter.WORKERS.values()
        worker.kind = missing(self._wanted, [other.kind for other in living])
        taken = [other.place for other in living if other.kind is worker.kind]
        worker.place = min(range(self._wanted[worker.kind]), key=taken.count)
        worker.giving, worker.taking = self._giving, self._taking

    def _settle_in(self, _arbiter: object, worker: Worker) -> None:
        self._worker = worker
        settings = self._settings
        worker.limits = ConnectionLimits(
            most_connections(settings.threads), settings.connections_per_address, settings.trusted_proxies
        )
        worker.settle_in()

    def _stop_worker(self, _arbiter: object, _worker: object) -> None:
        for thread in self._background:
            thread.stop()


def _forget_worker(_arbiter: object, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
