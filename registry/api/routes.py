"""The registry over REST: the lock, the front door, and what administrators do with who stands there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from flask import Response, current_app, request

from authsvc.api.schemas import noun, permissions_from, render, render_page
from authsvc.errors import AuthsvcError
from authsvc.pki import csr
from authsvc.record_json import json_value
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, public, services
from registry import decisions, enrolment_keys, filters, metrics, preauthorizations, records
from registry import lock as window
from registry.api import advance_schemas, filter_schemas, flood_schemas, schemas
from registry.mqtt_registration import unknown_names
from registry.rest_registration import Granted, RegistrationRequest
from registry.states import Status

if TYPE_CHECKING:
    from authsvc.pki.authorities import SigningPolicy
    from registry.mqtt_registration.registration import MqttRegistration
    from registry.rest_registration import RestRegistration

EXTENSION = "registry"
RETRY_SECONDS = "5"

blueprint = noun("client-registry", "Strangers ask, an administrator grants")
advance_blueprint = noun("preauthorizations", "Grants given before their names make contact")
key_blueprint = noun("enrolment-keys", "Secrets that vouch for so many registrations")
BLUEPRINTS = (blueprint, advance_blueprint, key_blueprint)


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry's parts, as made in `registry.register`."""

    explicit: RestRegistration
    intake: MqttRegistration
    issuing: SigningPolicy
    max_request_bytes: int


def registry() -> Registry:
    """Return the registry of the app that is answering."""
    return cast("Registry", current_app.extensions[EXTENSION])


@blueprint.get("/client-registry", responses={200: schemas.LockStateView})
def state() -> dict[str, Any]:
    """Show the lock and how many registrations are pending."""
    return _state(window.state())


@blueprint.post("/client-registry/unlock", responses={200: schemas.LockStateView})
def unlock(body: schemas.UnlockBody) -> dict[str, Any]:
    """Open the registry for a while; it locks itself again."""
    return _state(window.unlock(actor(), body.duration_seconds, body.limits()))


@blueprint.post("/client-registry/lock", responses={200: schemas.LockStateView})
def lock() -> dict[str, Any]:
    """Close the registry at once."""
    return _state(window.lock(actor()))


@blueprint.before_request
def _limit_request() -> None:
    if request.endpoint == f"{blueprint.name}.register":
        request.max_content_length = registry().max_request_bytes


@blueprint.post(
    "/client-registry/register",
    responses={201: schemas.GrantedView, 202: schemas.PendingView, **schemas.failures(423, 429)},
    security=[{}],
)
@public
def register(body: schemas.RegisterBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Ask to become a user; repeat the same request until it is answered 201."""
    try:
        outcome = registry().explicit.register(_application(body))
    except AuthsvcError as error:
        metrics.count_answer(status_of(error))
        raise
    if isinstance(outcome, Granted):
        metrics.count_answer(201)
        view = schemas.GrantedView(
            username=outcome.username, certificate=outcome.certificate, ca_certificate=outcome.ca_certificate
        )
        return render(view), 201, {}
    metrics.count_answer(202)
    waiting = schemas.PendingView(id=outcome.id, pairing_code=outcome.pairing_code)
    return render(waiting), 202, {"Retry-After": RETRY_SECONDS}


@blueprint.get("/client-registry/registrations", responses={200: schemas.RegistrationPage})
def list_registrations(query: schemas.RegistrationQuery) -> dict[str, Any]:
    """List registrations, latest contact first."""
    found = records.search(query.status or "", query.search, query.page, query.per_page)
    return render_page(found, map(schemas.view_registration, found.items))


@blueprint.get("/client-registry/registrations/<id>", responses={200: schemas.RegistrationView})
def show(path: schemas.IdPath) -> dict[str, Any]:
    """Show a registration."""
    return render(schemas.view_registration(records.get(path.id)))


@blueprint.post(
    "/client-registry/registrations/<id>/grant",
    responses={200: schemas.RegistrationView, **schemas.failures(423)},
)
def grant(path: schemas.IdPath, body: schemas.GrantBody) -> dict[str, Any]:
    """Make the user, with what is named here and nothing else."""
    record = decisions.grant(actor(), path.id, body.grant(), registry().issuing)
    return render(schemas.view_registration(record))


@blueprint.post("/client-registry/registrations/<id>/deny", responses={200: schemas.RegistrationView})
def deny(path: schemas.IdPath, body: schemas.DenyBody) -> dict[str, Any]:
    """Refuse a registration; remembered until it is deleted."""
    return render(schemas.view_registration(decisions.deny(actor(), path.id, body.reason)))


@blueprint.delete("/client-registry/registrations/<id>", responses={204: None})
def delete(path: schemas.IdPath) -> Response:
    """Forget a registration, so that the name may ask again."""
    decisions.delete(actor(), path.id)
    return Response(status=204)


@blueprint.post("/client-registry/registrations/grant", responses={200: schemas.BulkView})
def grant_many(body: schemas.GrantManyBody) -> dict[str, Any]:
    """Grant many, each on its own: what fails for one does not undo the others.

    A row fails if it has conflicts (`registration-has-conflicts`), would get rights over this service
    (`bulk-http-rights`), or, with `acceptRequested`, if those that request something request different things
    (`bulk-requests-differ`).
    """
    return _bulk(*decisions.grant_many(actor(), body.ids, body.grant(), registry().issuing))


@blueprint.post("/client-registry/registrations/deny", responses={200: schemas.BulkView})
def deny_many(body: filter_schemas.DenyManyBody) -> dict[str, Any]:
    """Deny many: each of those named by id on its own, or all that match a filter at once."""
    author = actor()
    if body.filter:
        return render(
            schemas.BulkView(count=filters.deny(author, body.filter.filter(), body.reason), items=[], failed=[])
        )
    return _bulk(*decisions.each(body.ids, lambda one: decisions.deny(author, one, body.reason)))


@blueprint.post("/client-registry/registrations/delete", responses={200: filter_schemas.CountView})
def delete_many(body: filter_schemas.DeleteManyBody) -> dict[str, Any]:
    """Delete all registrations that match a filter, so that their names may ask again."""
    return render(filter_schemas.CountView(count=filters.delete(actor(), body.filter.filter(), Status(body.status))))


@advance_blueprint.get("/client-registry/preauthorizations", responses={200: advance_schemas.PreauthorizationPage})
def list_preauthorizations(query: schemas.SearchQuery) -> dict[str, Any]:
    """List the preauthorizations that were not used yet."""
    found = preauthorizations.search(query.search, query.page, query.per_page)
    return render_page(found, map(advance_schemas.view_preauthorization, found.items))


@advance_blueprint.post(
    "/client-registry/preauthorizations", responses={201: advance_schemas.CreatedPreauthorizationView}
)
def create_preauthorization(body: advance_schemas.PreauthorizationBody) -> tuple[dict[str, Any], int]:
    """Let a name in at its first contact, also while the registry is locked; once.

    One that is bound to nothing goes to whoever comes first, and waits for an administrator if somebody tried the name
    earlier.
    """
    ((record, secret),) = preauthorizations.create(actor(), [body.advance()], services().settings.password_policy)
    view = advance_schemas.view_preauthorization(record)
    return render(advance_schemas.CreatedPreauthorizationView(**view.model_dump(), secret=secret)), 201


@advance_blueprint.post("/client-registry/preauthorizations/csv", responses={201: advance_schemas.UploadView})
def upload_preauthorizations(
    query: advance_schemas.UploadQuery, raw: advance_schemas.CsvUpload
) -> tuple[dict[str, Any], int]:
    """Preauthorize many from `username,roles,csrFingerprint` lines; all of them or none."""
    text = raw.get_data().decode("utf-8-sig", "replace")
    advances = preauthorizations.read_csv(text, with_secrets=query.with_secrets)
    stored = preauthorizations.create(actor(), advances, services().settings.password_policy)
    return render(advance_schemas.view_upload(stored)), 201


@advance_blueprint.delete("/client-registry/preauthorizations/<id>", responses={204: None})
def delete_preauthorization(path: schemas.IdPath) -> Response:
    """Take a preauthorization back before it is used."""
    preauthorizations.delete(actor(), path.id)
    return Response(status=204)


@key_blueprint.get("/client-registry/enrolment-keys", responses={200: advance_schemas.KeyPage})
def list_keys(query: schemas.PageQuery) -> dict[str, Any]:
    """List enrolment keys, newest first; never their secrets."""
    found = enrolment_keys.search(query.page, query.per_page)
    return render_page(found, map(advance_schemas.view_key, found.items))


@key_blueprint.post("/client-registry/enrolment-keys", responses={201: advance_schemas.NewKeyView})
def create_key(body: advance_schemas.KeyBody) -> tuple[dict[str, Any], int]:
    """Make an enrolment key; its secret is shown this once."""
    secret, record = enrolment_keys.create(
        actor(), body.label, body.uses, tuple(body.roles), body.expires_at, approval_required=body.approval_required
    )
    return render(advance_schemas.NewKeyView(**advance_schemas.view_key(record).model_dump(), secret=secret)), 201


@key_blueprint.delete("/client-registry/enrolment-keys/<id>", responses={204: None})
def revoke_key(path: schemas.IdPath) -> Response:
    """Revoke an enrolment key at once."""
    enrolment_keys.revoke(actor(), path.id)
    return Response(status=204)


def _application(body: schemas.RegisterBody) -> RegistrationRequest:
    return RegistrationRequest(
        username=body.username,
        password=body.password,
        request=csr.read(body.csr, body.username) if body.csr is not None else None,
        context=body.context,
        requested_roles=tuple(body.roles),
        requested_permissions=tuple(json_value(permissions_from(body.permissions))),
        enrolment_key=body.enrolment_key,
        address=request.remote_addr,
    )


def _state(now: window.LockState) -> dict[str, Any]:
    view = schemas.LockStateView(
        locked=now.locked,
        unlocked_until=now.unlocked_until,
        seconds_left=now.seconds_left,
        pending=records.count_pending(),
        max_registrations=now.max_registrations,
        username_pattern=now.username_pattern,
        roles=list(now.roles),
        flood=flood_schemas.view_flood(unknown_names.flood()),
    )
    return render(view)


def _bulk(done: list[records.Record], failed: list[decisions.Failure]) -> dict[str, Any]:
    failures = [schemas.FailureView(id=id_, code=error.code, detail=error.message) for id_, error in failed]
    return render(
        schemas.BulkView(count=len(done), items=[schemas.view_registration(record) for record in done], failed=failures)
    )
