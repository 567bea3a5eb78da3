"""What views share: the objects of the running service, and the caller of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import current_app, g, request

from authsvc.accounts.api_tokens import TokenLimits
from authsvc.errors import Busy, Unauthenticated
from authsvc.policy.actors import Actor, Via
from authsvc.storage.policy_cache import STALE_AFTER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from authsvc.accounts.sign_in.passwords import SignIns
    from authsvc.accounts.sign_in.second_factor import SecondFactors
    from authsvc.activity.client_ids import SeenClientIds
    from authsvc.activity.decision_stats import DecisionStats
    from authsvc.activity.denials import Denials
    from authsvc.activity.failed_sign_ins import FailedSignIns
    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.broker.plugin_routes import PluginRoutes
    from authsvc.broker.webhooks import Webhooks
    from authsvc.credentials.hashing import HashingPool
    from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
    from authsvc.credentials.rehashing import Rehashing
    from authsvc.identity.sign_in import ExternalSignIns
    from authsvc.policy.access import AccessControl
    from authsvc.policy.actors import Proof
    from authsvc.policy.snapshot import UserPolicy
    from authsvc.settings import Lifetime, Settings
    from authsvc.storage.policy_cache import PolicyCache
    from authsvc.storage.propagation import Propagation

EXTENSION = "authsvc"
MAX_LARGE_BODY = 32 * 1024 * 1024
"""The maximum size of the body of a request that brings many users."""
_LARGE = frozenset({"/api/apply", "/api/users/batch"})
_IMPORTS = ("/api/import/", "/admin/import")
View = TypeVar("View", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Services:
    """The objects of one running service; only `app` creates them."""

    settings: Settings
    policy: PolicyCache
    verifier: PasswordVerifier
    hasher: PasswordHasher
    rehashing: Rehashing
    broker_hashing: HashingPool
    access: AccessControl
    sign_ins: SignIns
    second_factors: SecondFactors
    external_sign_ins: ExternalSignIns
    failed_sign_ins: FailedSignIns
    webhooks: Webhooks
    plugin: PluginRoutes
    client_ids: SeenClientIds
    denials: Denials
    decision_stats: DecisionStats
    broker: TakeoverBroker | None
    propagation: Propagation

    @property
    def policy_is_stale(self) -> bool:
        """Whether this worker or a broker worker has not refreshed its policy for `STALE_AFTER_SECONDS`."""
        return max(self.policy.age, self.propagation.age) > STALE_AFTER_SECONDS


def services() -> Services:
    """Return the objects of the current app."""
    return cast("Services", current_app.extensions[EXTENSION])


def catch_up() -> None:
    """Reload the policy if the database has a newer version; `Busy` during the first load."""
    policy = services().policy
    if policy.is_loading:
        raise Busy("the policy is loading; try again in a few seconds", "policy-loading")
    policy.catch_up()


def public(view: View) -> View:
    """Mark a view below `/api` or `/admin` as one that needs no authentication."""
    view.public = True  # type: ignore[attr-defined]
    return view


def limit_body() -> None:
    """Let some requests have a larger body than all others; to be called before each request."""
    if takes_large_body(request.path):
        request.max_content_length = MAX_LARGE_BODY


def takes_large_body(path: str) -> bool:
    """Return whether the body of a request to this path may have up to `MAX_LARGE_BODY` bytes."""
    return path in _LARGE or path.startswith(_IMPORTS)


def enrols(view: View) -> View:
    """Mark a view below `/api` that a user may call with its password before it has set up a required second factor."""
    view.enrols = True  # type: ignore[attr-defined]
    return view


def is_page(path: str) -> bool:
    """Return whether a path belongs to the administrator's page."""
    return path == "/admin" or path.startswith("/admin/")


def caller() -> UserPolicy:
    """Return the authenticated user of this request."""
    user = g.get("caller")
    if user is None:
        raise Unauthenticated("sign in first")
    return cast("UserPolicy", user)


def token_limits() -> TokenLimits:
    settings = services().settings
    return TokenLimits(settings.tokens_per_minute, settings.token_max_days)


def session_lifetime() -> Lifetime:
    return services().settings.session_lifetime


def actor_for(user: UserPolicy, proof: Proof | None = None) -> Actor:
    """Return the user as the actor of a change, with its current rights."""
    snapshot = services().policy.snapshot
    # Looked up again, because the user and its roles must be of the same policy version.
    current = snapshot.users.get(user.username)
    rules = tuple(snapshot.rules_of(current)) if current else ()
    via = Via.PAGE if is_page(request.path) else Via.API
    return Actor(user.username, via, rules, request.remote_addr, g.get("request_id"), proof)


def actor() -> Actor:
    """Return the caller as the actor of a change."""
    return actor_for(caller(), g.get("proof"))
