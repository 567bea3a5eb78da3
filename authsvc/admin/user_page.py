"""What stands beside a user on its page: rights, credentials, clients and history, each for those who may see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authsvc.accounts import api_tokens, browser_sessions, client_id_warnings
from authsvc.activity import audit, client_ids
from authsvc.admin.pages import may
from authsvc.pki import certificates
from authsvc.web.request_context import services, session_lifetime

if TYPE_CHECKING:
    from authsvc.accounts.users import UserRecord
    from authsvc.policy.permissions import Rule

_SHOWN = 10


def beside(user: UserRecord) -> dict[str, Any]:
    """Return what a user's page shows besides the user itself; None for what the caller may not read."""
    name = user.username
    rules, hidden_roles = effective_rules(user)
    return {
        "rules": rules,
        "hidden_roles": hidden_roles,
        "client_ids": _allowed_client_ids(user, hidden_roles),
        "warnings": client_id_warnings.of_user(user),
        "seen": client_ids.of_user(name),
        "has_broker": services().broker is not None,
        "certificates": may("GET", f"/api/users/{name}/certificates")
        and certificates.search(certificates.CertificateFilter(name), 1, _SHOWN),
        "tokens": may("GET", "/api/tokens") and _tokens(name),
        "sessions": may("GET", "/api/sessions") and browser_sessions.search(name, session_lifetime(), 1, _SHOWN),
        "events": latest_events(f"user:{name}"),
    }


def latest_events(target: str) -> list[audit.Event] | None:
    """Return the latest entries of the audit trail about something; None for whoever may not read it."""
    if not may("GET", "/api/audit"):
        return None
    return audit.events(1, _SHOWN, {"target": target}).items


def effective_rules(user: UserRecord) -> tuple[list[Rule], list[str]]:
    """Return every rule that is in force for a user, and the names of those roles whose rules are not shown here."""
    snapshot = services().policy.snapshot
    policy = snapshot.users.get(user.username)
    hidden = [role for role in user.roles if not may("GET", f"/api/roles/{role}")]
    rules = snapshot.rules_of(policy) if policy else []
    return [rule for rule in rules if rule.role not in hidden], hidden


def _allowed_client_ids(user: UserRecord, hidden_roles: list[str]) -> list[tuple[str, str | None]]:
    """Return the user's allowed client ids, each with the role it comes through or None; not those of hidden roles."""
    roles = services().policy.snapshot.roles
    visible = [role for role in user.roles if role in roles and role not in hidden_roles]
    own = [(pattern, None) for pattern in user.client_ids]
    return [*own, *((pattern, role) for role in visible for pattern in roles[role].client_ids)]


def _tokens(username: str) -> Any:
    api_tokens.store_uses(services().access.token_uses)
    return api_tokens.list_tokens(username, "", 1, _SHOWN)
