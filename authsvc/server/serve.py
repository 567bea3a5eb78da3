"""Runs the service: two listeners, each a gunicorn with processes of its own, and their supervisor.

Python runs one thread of a process at a time, so a slow page would keep a broker waiting in the same process. The API
listener and the broker listener share the database and nothing else, and each can also run by itself.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import threading
from contextlib import suppress
from enum import StrEnum
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from authsvc.accounts import bootstrap
from authsvc.addresses import binds_loopback
from authsvc.errors import SettingsError
from authsvc.observability import logs
from authsvc.observability.serving import Announcement
from authsvc.server.connection_limits import (
    ConnectionLimits,
    Connections,
    LimitedLoopPolicy,
    most_connections,
    raise_descriptor_limit,
)
from authsvc.server.shared_policy import SharedPolicy
from authsvc.settings import set_by_kubernetes
from authsvc.storage.database import connect_to
from authsvc.storage.policy_cache import PolicyCache

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings
    from authsvc.storage.background import BackgroundThread
    from authsvc.storage.propagation import Propagation

log = structlog.get_logger()


class Listener(StrEnum):
    """A listener, named for its callers: administrators and registering devices, or brokers."""

    API = "api"
    BROKER = "broker"


# A broker keeps one connection for as long as it lives and does not try again when it finds it closed.
_KEEP_ALIVE_SECONDS = {Listener.API: 75, Listener.BROKER: 10 * 365 * 24 * 3600}
# Pages and lists wait whenever a broker's webhook or a device's login needs the processor.
_API_NICENESS = 10
# With few users the policy is loaded in this time, and no client meets a process without it.
_LOADED_WITHIN_SECONDS = 5.0
# So that a device which logged in before a restart is known after it.
_CLIENT_IDS_WITHIN_SECONDS = 5.0
# Background threads that run beside the API only: signing a long revocation list takes its time, and so does a broker
# or a receiver of notifications that does not answer.
_ONLY_BESIDE_THE_API = ("certificates", "sessions", "notifications")
_RESTART_SECONDS = 2.0
# A listener that fails so soon cannot start at all, because its address is in use, say. gunicorn tries for 5 s.
_CANNOT_START_SECONDS = 30.0
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def check(settings: Settings, only: Listener | None = None) -> None:
    """Raise `SettingsError` if serving with these settings would be unsafe."""
    bootstrap.check_modes(settings)
    for listener in [only] if only else Listener:
        bind = _bind(settings, listener)
        if not binds_loopback(bind) and not settings.webhook_secret:
            raise SettingsError(
                f"AUTHSVC_WEBHOOK_SECRET must be set to listen on {bind}: "
                "without it anybody who reaches that address could try passwords at the webhooks"
            )


def run(settings: Settings, only: Listener | None = None) -> None:
    """Serve until told to stop; the database must have been prepared."""
    _prepare_metrics(settings.data_dir / "metrics")
    gc.disable()  # until everything exists; it would look at all of it again and again
    # Once, before any process is forked: a process that replaces another then starts in a moment.
    routes = importlib.import_module("authsvc.app").create_routes()
    _forget_metrics_of(os.getpid())
    logs.configure(settings.log_level)
    ignored = set_by_kubernetes(os.environ)
    if ignored:
        log.info("ignored variables that Kubernetes sets for a service named authsvc", variables=ignored)
    if settings.ca_key_passphrase is None:
        log.warning(
            "the key of the certificate authority is stored without encryption",
            advice="set AUTHSVC_CA_KEY_PASSPHRASE, and the next start encrypts it",
        )
    raise_descriptor_limit()
    connect_to(settings.database_url)
    policy = SharedPolicy(PolicyCache())
    policy.refresh()
    # What exists now is left out of each garbage collection, which would write to all of it and so end the sharing.
    gc.collect()
    gc.freeze()
    gc.enable()
    if only:
        _Gunicorn(settings, only, policy, routes).run()
    else:
        _Supervisor(settings, policy, routes).run()


class _Supervisor:
    """Runs both listeners; one that ends by itself is started again, unless it never came up."""

    def __init__(self, settings: Settings, policy: SharedPolicy, routes: OpenAPI) -> None:
        self._settings = settings
        self._policy = policy
        self._routes = routes
        self._started_at = monotonic()
        self._running: dict[Listener, ForkProcess] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Return when both listeners have ended after a signal; raise `SettingsError` if one cannot start."""
        for listener in Listener:
            self._start(listener)
        for number in _PASSED_ON:
            signal.signal(number, self._pass_on)
        failed = None
        while not self._stopping.is_set():
            began = monotonic()
            # The timeout is for a killed listener whose workers live on and keep its sentinel open.
            wait([process.sentinel for process in self._running.values()], timeout=_RESTART_SECONDS)
            # A listener that ends again and again must not keep the processor busy.
            self._stopping.wait(_RESTART_SECONDS - (monotonic() - began))
            self._policy.refresh()
            for listener, process in list(self._running.items()):
                if process.is_alive() or self._stopping.is_set():
                    continue
                if process.exitcode and process.exitcode > 0 and monotonic() < self._started_at + _CANNOT_START_SECONDS:
                    failed = listener
                    self._stopping.set()
                else:
                    log.error("listener ended; starting it again", listener=listener, exit_code=process.exitcode)
                    self._start(listener)
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.join()
        if failed:
            raise SettingsError(f"the {failed} listener cannot start on {_bind(self._settings, failed)}; see the log")

    def _start(self, listener: Listener) -> None:
        self._policy.prepare_fork()
        arguments = (self._settings, listener, self._policy, self._routes)
        process = get_context("fork").Process(target=_run_supervised, args=arguments, name=listener)
        process.start()
        self._running[listener] = process

    def _pass_on(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP:
            self._stopping.set()
        for process in self._running.values():
            if process.pid and process.is_alive():
                os.kill(process.pid, number)


def _run_supervised(settings: Settings, listener: Listener, policy: SharedPolicy, routes: OpenAPI) -> None:
    for number in _PASSED_ON:
        signal.signal(number, signal.SIG_DFL)
    threading.Thread(target=_end_with_supervisor, name="supervisor", daemon=True).start()
    _Gunicorn(settings, listener, policy, routes).run()


def _end_with_supervisor() -> None:
    supervisor = parent_process()
    if supervisor:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGTERM)


class _Master(Arbiter):  # type: ignore[misc]
    """gunicorn's process that starts the workers of a listener; it also keeps the policy that they begin with."""

    def __init__(self, app: _Gunicorn, policy: SharedPolicy) -> None:
        self._policy = policy
        super().__init__(app)

    def murder_workers(self) -> None:
        """End workers that do not answer, and refresh the policy; called once a second."""
        super().murder_workers()
        self._policy.refresh()


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    """One listener."""

    def __init__(self, settings: Settings, listener: Listener, policy: SharedPolicy, routes: OpenAPI) -> None:
        self._settings = settings
        self._listener = listener
        self._policy = policy
        self._routes = routes
        limits = ConnectionLimits(
            most_connections(settings.threads),
            settings.connections_per_address,
            settings.trusted_proxies,
            # At the broker listener the newcomer may be a broker, which proves it at once.
            evicts=listener is Listener.BROKER,
        )
        self._connections = Connections(limits)
        self._background: list[BackgroundThread] = []
        self._propagation: Propagation | None = None
        self._announcement: Announcement | None = None
        super().__init__()

    def run(self) -> None:
        """Serve until told to stop."""
        _Master(self, self._policy).run()

    def load_config(self) -> None:
        settings, listener = self._settings, self._listener
        options: dict[str, Any] = {
            "bind": _bind(settings, listener),
            "worker_class": "asgi",
            # That is, the loop of asyncio's policy.
            "asgi_loop": "asyncio",
            "asgi_lifespan": "off",
            "workers": settings.workers if listener is Listener.BROKER else settings.api_workers,
            "keepalive": _KEEP_ALIVE_SECONDS[listener],
            # A process closes its last connections 3 s after it was told to end, and then writes down what it knows.
            "graceful_timeout": 6,
            "proc_name": f"authsvc-{listener}",
            "control_socket_disable": True,
            "logger_class": logs.GunicornLogger,
            "pre_fork": self._before_worker,
            "post_fork": self._begin_worker,
            "post_worker_init": self._announce,
            "worker_exit": self._end_worker,
            "child_exit": _forget_worker,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the ASGI application; gunicorn calls this in each process, after the fork."""
        from authsvc.app import BACKGROUND, assemble
        from authsvc.broker.asgi import BrokerApplication
        from authsvc.web.asgi import ApiApplication
        from authsvc.web.request_context import EXTENSION

        settings = self._settings
        bootstrap.open_database(settings)
        app = assemble(self._routes, settings, _bind(settings, self._listener), self._policy.snapshot)
        services = app.extensions[EXTENSION]
        answers_brokers = self._listener is Listener.BROKER
        left_out = _ONLY_BESIDE_THE_API if answers_brokers else ()
        self._background = [thread for thread in app.extensions[BACKGROUND] if thread.name not in left_out]
        self._propagation = services.propagation
        if answers_brokers:
            # Before the policy is read, so that no change falls between the two.
            services.propagation.listen(services.policy.catch_up)
        self._start_background()
        if answers_brokers:
            return BrokerApplication(services.webhooks, services.plugin, self._connections)
        return ApiApplication(app, settings.threads, self._connections)

    def _start_background(self) -> None:
        policy, client_ids, *_ = self._background
        for thread in self._background:
            thread.start()
        if not policy.wait_until_ready(within=_LOADED_WITHIN_SECONDS):
            # gunicorn kills a process that takes long to come up, and the next one would take as long.
            log.warning("policy is still loading; until it is loaded, /readyz answers 503 and brokers are refused")
        elif not client_ids.wait_until_ready(within=_CLIENT_IDS_WITHIN_SECONDS):
            log.warning("client ids are still loading; until they are loaded, devices count as unknown")

    def _before_worker(self, _arbiter: object, _worker: object) -> None:
        self._policy.prepare_fork()

    def _begin_worker(self, _arbiter: object, _worker: object) -> None:
        asyncio.set_event_loop_policy(LimitedLoopPolicy(self._connections))
        # Before there is any thread, since each thread has a niceness of its own.
        if self._listener is Listener.API:
            os.nice(_API_NICENESS)

    def _announce(self, worker: Any) -> None:
        addresses = [str(listening).removeprefix("http://") for listening in worker.sockets]
        self._announcement = Announcement(self._settings.run_dir, self._listener, addresses)

    def _end_worker(self, _arbiter: object, _worker: object) -> None:
        if self._announcement:
            self._announcement.end()
        if self._propagation:
            self._propagation.close()
        for thread in self._background:
            thread.stop()


def _bind(settings: Settings, listener: Listener) -> str:
    return settings.bind if listener is Listener.API else settings.broker_bind


def _prepare_metrics(directory: Path) -> None:
    """Give prometheus_client a directory, which it reads from the environment when it is imported.

    Both listeners share it, also if they were started separately, unless they run in different containers: files are
    named by process id, `KIND_PID.db`.
    """
    own = directory / str(Path("/proc/self/ns/pid").stat().st_ino)
    for path in (directory, own):
        path.mkdir(mode=0o700, exist_ok=True)
    for file in own.glob("*.db"):
        pid = file.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            with suppress(FileNotFoundError):
                file.unlink()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(own)


def _forget_worker(_arbiter: object, worker: Any) -> None:
    _forget_metrics_of(worker.pid)


def _forget_metrics_of(pid: int) -> None:
    """Remove the gauges of a process that has ended, or that only starts others and would report zeros."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]
