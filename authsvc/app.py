"""The composition root: here, and nowhere else, the parts are put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask_openapi3.openapi import OpenAPI

from authsvc import admin, api
from authsvc.accounts.sign_in.passwords import SignIns
from authsvc.accounts.sign_in.second_factor import SecondFactors
from authsvc.activity import live_clients
from authsvc.activity.client_ids import SeenClientIds
from authsvc.activity.decision_stats import DecisionStats
from authsvc.activity.denials import Denials
from authsvc.activity.failed_sign_ins import FailedSignIns
from authsvc.activity.mqtt_takeover import takeover_broker
from authsvc.addresses import binds_loopback
from authsvc.broker.change_streams import ChangeStreams
from authsvc.broker.plugin_protocol import UserStates
from authsvc.broker.plugin_routes import PluginRoutes, ReportReceivers
from authsvc.broker.webhooks import WaitBudgets, Webhooks
from authsvc.credentials.hashing import HashingPool, WaitBudget
from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
from authsvc.credentials.rehashing import Rehashing
from authsvc.identity.sign_in import ExternalSignIns
from authsvc.jobs import (
    certificate_jobs,
    client_id_jobs,
    disconnect_jobs,
    notification_jobs,
    policy_jobs,
    record_jobs,
    rehashing_jobs,
    watch_jobs,
)
from authsvc.observability import metrics
from authsvc.policy.access import AccessControl
from authsvc.storage.background import BackgroundThread
from authsvc.storage.database import shared_session
from authsvc.storage.policy_cache import PolicyCache
from authsvc.storage.propagation import Propagation
from authsvc.web import downloads, health, problem, tracing, webhook_views
from authsvc.web.path_names import EncodedSlashes
from authsvc.web.proxies import TrustedProxies
from authsvc.web.request_context import EXTENSION, Services, limit_body
from authsvc.web.tracing import TokenRedaction
from registry import extension

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from authsvc.policy.snapshot import Snapshot
    from authsvc.settings import Settings

BACKGROUND = "authsvc.background"
"""Where the app keeps the threads that belong to it; they run once somebody starts them."""

# One hash at a time for the API and the registry: brokers' logins have the cores.
_API_HASH_WORKERS, _API_HASH_QUEUE = 1, 64
_MAX_BODY = 4 * 1024 * 1024


def create_app(settings: Settings, bind: str | None = None) -> OpenAPI:
    """Return the WSGI application; the database must have been opened (`first_start.prepare`).

    `bind` is the address that this process listens on, `settings.bind` unless given.
    """
    return assemble(create_routes(), settings, bind)


def create_routes() -> OpenAPI:
    """Return an app that has all routes and no parts behind them; `assemble` adds the parts."""
    app = OpenAPI(
        "authsvc",
        info=api.INFO,
        security_schemes=api.SECURITY_SCHEMES,
        validation_error_status=400,
        validation_error_model=api.Problem,
        validation_error_callback=problem.of_validation,
        doc_ui=False,
        static_folder=None,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # fields in the order that a reader expects
    app.config["MAX_CONTENT_LENGTH"] = _MAX_BODY
    app.before_request(limit_body)
    problem.register(app)
    tracing.register(app)
    app.register_blueprint(webhook_views.blueprint)
    app.register_blueprint(health.blueprint)
    app.register_blueprint(downloads.blueprint)
    api.register(app)
    admin.register(app)
    extension.register(app)
    return app


def assemble(app: OpenAPI, settings: Settings, bind: str | None = None, inherited: Snapshot | None = None) -> OpenAPI:
    """Put the parts of one service behind the routes, and return the app.

    `inherited` is a policy that the parent process has read: only what changed since is read again.
    """
    services = app.extensions[EXTENSION] = compose(settings, bind, inherited)
    redacting = TokenRedaction(_in_one_session(app.wsgi_app))
    app.wsgi_app = EncodedSlashes(TrustedProxies(redacting, settings.trusted_proxies))  # type: ignore[method-assign]
    app.extensions[BACKGROUND] = [
        BackgroundThread("policy", policy_jobs(services)),
        BackgroundThread("client ids", client_id_jobs(services)),
        BackgroundThread("watch", watch_jobs(services)),
        BackgroundThread("records", record_jobs(services)),
        BackgroundThread("rehashing", rehashing_jobs(services)),
        BackgroundThread("certificates", certificate_jobs(services)),
        BackgroundThread("notifications", notification_jobs(services)),
        BackgroundThread("registry", extension.assemble(app, services)),
    ]
    if services.broker is not None:
        app.extensions[BACKGROUND].append(BackgroundThread("sessions", disconnect_jobs(services.broker)))
    return app


def compose(settings: Settings, bind: str | None = None, inherited: Snapshot | None = None) -> Services:
    """Make the parts of one service."""
    policy = PolicyCache(inherited)
    api_hashing = HashingPool(_API_HASH_WORKERS, _API_HASH_QUEUE)
    broker_hashing = HashingPool(settings.hash_workers, settings.hash_queue)
    wait_seconds = settings.connect_budget_ms / 1000
    budgets = WaitBudgets(WaitBudget(wait_seconds, broker_hashing), WaitBudget(wait_seconds, broker_hashing))
    rehashing = Rehashing(broker_hashing, settings.bcrypt_cost)
    verifier = PasswordVerifier(
        broker_hashing,
        api_hashing,
        settings.credential_cache_entries,
        settings.bcrypt_cost,
        on_foreign=None if settings.keep_foreign_hashes else rehashing.note,
    )
    seen_client_ids = SeenClientIds()
    denials, failed_sign_ins = Denials(), FailedSignIns()
    second_factors = SecondFactors(settings.ca_key_passphrase)
    access = AccessControl(policy, verifier, seen_client_ids.known, seen_client_ids.note)
    user_states = UserStates(policy)
    slots = max(1, settings.threads // 4)
    external_sign_ins = ExternalSignIns(settings, policy, slots, failed_sign_ins)
    report_receivers = ReportReceivers(
        store_report=live_clients.store,
        record_client_id=seen_client_ids.note,
        record_denial=denials.note,
        count_dropped_denials=denials.count_dropped,
    )
    return Services(
        settings=settings,
        policy=policy,
        verifier=verifier,
        hasher=PasswordHasher(settings.password_policy, settings.bcrypt_cost, api_hashing),
        broker_hashing=broker_hashing,
        rehashing=rehashing,
        access=access,
        sign_ins=SignIns(
            access,
            settings.wrong_passwords_per_minute,
            slots,
            failed_sign_ins,
            second_factors,
            factor_required=settings.second_factor == "required",
            ask_directory=external_sign_ins.with_directory_password if external_sign_ins.directory else None,
            local_on_loopback=settings.local_sign_in == "loopback",
        ),
        external_sign_ins=external_sign_ins,
        second_factors=second_factors,
        failed_sign_ins=failed_sign_ins,
        webhooks=Webhooks(
            access,
            user_states,
            denials.note,
            settings.webhook_secret,
            budgets,
            settings.answer_cache_entries,
            on_loopback=binds_loopback(bind or settings.bind),
        ),
        plugin=PluginRoutes(user_states, ChangeStreams(policy), report_receivers),
        client_ids=seen_client_ids,
        denials=denials,
        decision_stats=DecisionStats(metrics.counted),
        broker=takeover_broker(settings),
        propagation=Propagation(settings.run_dir),
    )


def _in_one_session(flask: WSGIApplication) -> WSGIApplication:
    """Return WSGI middleware: the database sessions of a request share an SQLite connection until Flask returns."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with shared_session():
            return flask(environ, start_response)

    return application
