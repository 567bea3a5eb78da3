"""What views share: the parts the service is made of, and who is calling."""

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

    from authsvc.accounts.sign_in import SignIns
    from authsvc.activity.client_ids import SeenClientIds
    from authsvc.activity.decision_stats import DecisionStats
    from authsvc.activity.denials import Denials
    from authsvc.activity.mqtt_takeover import TakeoverBroker
    from authsvc.broker.webhooks import Webhooks
    from authsvc.credentials.hashing import HashingPool
    from authsvc.credentials.passwords import PasswordHasher, PasswordVerifier
    from authsvc.policy.access import AccessControl
    from authsvc.policy.actors import Proof
    from authsvc.policy.snapshot import UserPolicy
    from authsvc.settings import Lifetime, Settings
    from authsvc.storage.policy_cache import PolicyCache
    from authsvc.storage.propagation import Propagation

EXTENSION = "authsvc"
View = TypeVar("View", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of one running service; made in `app` and nowhere else."""

    settings: Settings
    policy: PolicyCache
    verifier: PasswordVerifier
    hasher: PasswordHasher
    broker_hashing: HashingPool
    access: AccessControl
    sign_ins: SignIns
    webhooks: Webhooks
    client_ids: SeenClientIds
    denials: Denials
    decision_stats: DecisionStats
    broker: TakeoverBroker | None
    propagation: Propagation

    @property
    def policy_is_stale(self) -> bool:
        """Whether this worker, or one that answers brokers, could not refresh its policy for some seconds."""
        return max(self.policy.age, self.propagation.age) > STALE_AFTER_SECONDS


def services() -> Services:
    """Return the parts of the app that is answering."""
    return cast("Services", current_app.extensions[EXTENSION])


def catch_up() -> None:
    """Bring policy up to date, so that a request is decided by what the database holds now; `Busy` while it loads."""
    policy = services().policy
    if policy.is_loading:
        raise Busy("the policy is loading; try again in a moment", "policy-loading")
    policy.catch_up()


def public(view: View) -> View:
    """Mark a view below `/api` or `/admin` as one that anybody may call."""
    view.public = True  # type: ignore[attr-defined]
    return view


def is_page(path: str) -> bool:
    """Say whether a path belongs to the administrator's page."""
    return path == "/admin" or path.startswith("/admin/")


def caller() -> UserPolicy:
    """Return the user this request was authenticated as."""
    user = g.get("caller")
    if user is None:
        raise Unauthenticated("sign in first")
    return cast("UserPolicy", user)


def token_limits() -> TokenLimits:
    """Return how many tokens may be made in a minute, and how long each may last."""
    settings = services().settings
    return TokenLimits(settings.tokens_per_minute, settings.token_max_days)


def session_lifetime() -> Lifetime:
    """Return how long a session at the page lasts."""
    return services().settings.session_lifetime


def actor_for(user: UserPolicy, proof: Proof | None = None) -> Actor:
    """Return the user as the author of a change, bound by its rights as they are now."""
    snapshot = services().policy.snapshot
    # A user and its roles must be of the same version, so not the user as it was authenticated.
    current = snapshot.users.get(user.username)
    rules = tuple(snapshot.rules_of(current)) if current else ()
    via = Via.PAGE if is_page(request.path) else Via.API
    return Actor(user.username, via, rules, request.remote_addr, g.get("request_id"), proof)


def actor() -> Actor:
    """Return the caller as the author of a change."""
    return actor_for(caller(), g.get("proof"))
