"""Login over REST, and the caller's own account."""

from __future__ import annotations

from typing import Any

from flask import request
from pydantic import Field

from authsvc.accounts import api_tokens
from authsvc.api.schemas import Body, GrantTypeName, Moment, PermissionView, Text, View, noun, render
from authsvc.web.request_context import actor_for, caller, public, services, token_limits

blueprint = noun("session", "Signing in")


class LoginBody(Body):
    """Credentials, and the lifetime and label of the token."""

    username: Text = Field(max_length=255)
    password: Text = Field(max_length=4096)
    expire_time_in_hours: float = Field(api_tokens.DEFAULT_HOURS, gt=0, le=api_tokens.MAX_HOURS)
    label: Text = Field("", max_length=200)
    otp: Text = Field(
        "", max_length=64, description="a code of the second factor or a recovery code, if the user has a second factor"
    )


class LoginView(View):
    """A new token, which no later request returns."""

    token: str
    id: str
    label: str
    expires_at: Moment


class EffectivePermission(PermissionView):
    """A permission and the role that gives it; null for the user's own."""

    role: str | None


class MeView(View):
    """The caller; `effectivePermissions` includes those of its roles."""

    username: str
    enabled: bool
    grant_types: list[GrantTypeName]
    roles: list[str]
    permissions: list[PermissionView]
    effective_permissions: list[EffectivePermission]


@blueprint.post("/login", responses={200: LoginView}, security=[{}])
@public
def login(body: LoginBody) -> dict[str, Any]:
    """Exchange a username and password, with a second factor also its code, for an API token.

    `401` has the code `otp-required` if the code is missing, `otp-wrong` if it is wrong or was used before, and
    `otp-enrolment-required` if the user must set up a second factor first.
    """
    signed_in = services().sign_ins.with_password(body.username, body.password, request.remote_addr, directory_too=True)
    actor = actor_for(signed_in.user, signed_in.proof)
    signed_in = services().sign_ins.complete(signed_in, actor, body.otp)
    issued = api_tokens.issue_token(
        actor,
        signed_in.user.username,
        body.label,
        body.expire_time_in_hours,
        token_limits(),
        also_audited=signed_in.how.audit_fields(),
    )
    record = issued.record
    return render(LoginView(token=issued.token, id=record.id, label=record.label, expires_at=record.expires_at))


@blueprint.get("/me", responses={200: MeView})
def get_me() -> dict[str, Any]:
    """Show the caller: user, roles, permissions."""
    user = caller()
    rules = services().policy.snapshot.rules_of(user)
    return render(
        MeView(
            username=user.username,
            enabled=user.enabled,
            grant_types=sorted(grant.value for grant in user.grant_types),
            roles=list(user.roles),
            permissions=[PermissionView.of(permission) for permission in user.permissions],
            effective_permissions=[EffectivePermission.of(permission, role=role) for permission, role in rules],
        )
    )
