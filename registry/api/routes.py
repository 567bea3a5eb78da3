"""The registry's REST API: lock, registrations, preauthorizations and enrolment keys."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Response, current_app, request

from authsvc.accounts.bulk import apply_to_each
from authsvc.api.schemas import View, noun, permissions_from, render, render_page
from authsvc.errors import AuthsvcError
from authsvc.pki import csr
from authsvc.web.problem import status_of
from authsvc.web.request_context import actor, public, services
from registry import decisions, enrolment_keys, filters, metrics, preauthorizations, records
from registry import lock as registry_lock
from registry.api import schemas
from registry.mqtt_registration import refused_names, unknown_names
from registry.rest_registration import Granted, RegistrationRequest
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from authsvc.accounts.bulk import Failure
    from authsvc.pki.authorities import SigningPolicy
    from registry.mqtt_registration.registration import MqttRegistration
    from registry.rest_registration import RestRegistration

EXTENSION = "registry"
RETRY_SECONDS = "5"
AnyView = TypeVar("AnyView", bound=View)

blueprint = noun("client-registry", "Unknown devices register, an administrator grants")
preauthorization_blueprint = noun("preauthorizations", "Grants for usernames before their first contact")
key_blueprint = noun("enrolment-keys", "Secrets that let a limited number of devices register")
BLUEPRINTS = (blueprint, preauthorization_blueprint, key_blueprint)


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry's objects, as created by `extension.assemble`."""

    rest_registration: RestRegistration
    mqtt_registration: MqttRegistration
    signing: SigningPolicy
    max_request_bytes: int


def registry() -> Registry:
    """Return the registry of the current app."""
    return cast("Registry", current_app.extensions[EXTENSION])


@blueprint.get("/client-registry", responses={200: schemas.LockStateView})
def get_registry() -> dict[str, Any]:
    """Return the state of the lock and the number of pending registrations."""
    return _state(registry_lock.state())


@blueprint.post("/client-registry/unlock", responses={200: schemas.LockStateView})
def unlock_registry(body: schemas.UnlockBody) -> dict[str, Any]:
    """Unlock the registry for a limited time."""
    return _state(registry_lock.unlock(actor(), body.duration_seconds, body.limits()))


@blueprint.post("/client-registry/lock", responses={200: schemas.LockStateView})
def lock_registry() -> dict[str, Any]:
    """Lock the registry at once."""
    return _state(registry_lock.lock(actor()))


@blueprint.before_request
def _limit_request() -> None:
    if request.endpoint == f"{blueprint.name}.{register_client.__name__}":
        request.max_content_length = registry().max_request_bytes


@blueprint.post(
    "/client-registry/register",
    responses={201: schemas.GrantedView, 202: schemas.PendingView, **schemas.failures(423, 429)},
    security=[{}],
)
@public
def register_client(body: schemas.RegisterBody) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Register a client. Repeat the same request until the answer is 201 (granted) or 403 (denied)."""
    try:
        outcome = registry().rest_registration.register(_registration_request(body))
    except AuthsvcError as error:
        metrics.count_answer(status_of(error))
        raise
    if isinstance(outcome, Granted):
        metrics.count_answer(201)
        return render(schemas.GrantedView(**outcome._asdict())), 201, {}
    metrics.count_answer(202)
    return render(schemas.PendingView(**outcome._asdict())), 202, {"Retry-After": RETRY_SECONDS}


@blueprint.get("/client-registry/registrations", responses={200: schemas.RegistrationPage})
def list_registrations(query: schemas.RegistrationQuery) -> dict[str, Any]:
    """List registrations, latest contact first unless asked otherwise."""
    found = records.search(query.wanted(), query.page, query.per_page, query.sort)
    return render_page(found, _views(schemas.RegistrationView, found.items))


@blueprint.get("/client-registry/registrations/<id>", responses={200: schemas.RegistrationView})
def get_registration(path: schemas.IdPath) -> dict[str, Any]:
    """Return a registration."""
    return _registration(records.get(path.id))


@blueprint.post(
    "/client-registry/registrations/<id>/grant",
    responses={200: schemas.RegistrationView, **schemas.failures(423)},
)
def grant_registration(path: schemas.IdPath, body: schemas.GrantBody) -> dict[str, Any]:
    """Grant a registration: create the user with the given rights and its starting rights."""
    return _registration(decisions.grant(actor(), path.id, body.grant(), registry().signing))


@blueprint.post("/client-registry/registrations/<id>/deny", responses={200: schemas.RegistrationView})
def deny_registration(path: schemas.IdPath, body: schemas.DenyBody) -> dict[str, Any]:
    """Deny a registration. The username stays denied until the registration is deleted."""
    return _registration(decisions.deny(actor(), path.id, body.reason))


@blueprint.delete("/client-registry/registrations/<id>", responses={204: None})
def delete_registration(path: schemas.IdPath) -> Response:
    """Delete a registration, so that the username can register again."""
    decisions.delete(actor(), path.id)
    return Response(status=204)


@blueprint.post("/client-registry/registrations/grant", responses={200: schemas.BulkView})
def grant_registrations(body: schemas.GrantManyBody) -> dict[str, Any]:
    """Grant many registrations, each in its own transaction.

    A registration fails if it has conflicts (`registration-has-conflicts`) or would get rights over this service
    (`bulk-http-rights`). With `acceptRequested`, registrations that request different rights fail too
    (`bulk-requests-differ`).
    """
    return _bulk(*decisions.grant_many(actor(), body.grants(), registry().signing))


@blueprint.post("/client-registry/registrations/deny", responses={200: schemas.BulkView})
def deny_registrations(body: schemas.DenyManyBody) -> dict[str, Any]:
    """Deny registrations by id, each in its own transaction, or all that match a filter in one transaction."""
    author = actor()
    if body.filter:
        count = filters.deny(author, body.filter.filter(), body.reason)
        return render(schemas.BulkView(count=count, items=[], failed=[]))
    return _bulk(*apply_to_each(body.ids, lambda id_: decisions.deny(author, id_, body.reason)))


@blueprint.post("/client-registry/registrations/delete", responses={200: schemas.CountView})
def delete_registrations(body: schemas.DeleteManyBody) -> dict[str, Any]:
    """Delete all registrations that match a filter, so that their usernames can register again."""
    return render(schemas.CountView(count=filters.delete(actor(), body.filter.filter(), Status(body.status))))


@preauthorization_blueprint.get("/client-registry/preauthorizations", responses={200: schemas.PreauthorizationPage})
def list_preauthorizations(query: schemas.SearchQuery) -> dict[str, Any]:
    """List unused preauthorizations, by username."""
    found = preauthorizations.search(query.search, query.page, query.per_page)
    return render_page(found, _views(schemas.PreauthorizationView, found.items))


@preauthorization_blueprint.post(
    "/client-registry/preauthorizations", responses={201: schemas.CreatedPreauthorizationView}
)
def create_preauthorization(body: schemas.PreauthorizationBody) -> tuple[dict[str, Any], int]:
    """Preauthorize a username: its first contact is granted, also while the registry is locked.

    Without a secret or key, the first device that uses the name is granted. If somebody tried the name earlier, an
    administrator must approve it.
    """
    settings = services().settings
    ((record, secret),) = preauthorizations.create(
        actor(), [body.preauthorization()], settings.password_policy, names=settings.registration_usernames
    )
    fields = {**asdict(record), "secret": secret}
    return render(schemas.CreatedPreauthorizationView.model_validate(fields)), 201


@preauthorization_blueprint.post("/client-registry/preauthorizations/csv", responses={201: schemas.UploadView})
def upload_preauthorizations(query: schemas.UploadQuery, raw: schemas.CsvUpload) -> tuple[dict[str, Any], int]:
    """Preauthorize usernames from lines of `username,roles,csrFingerprint`; all of them or none."""
    text = raw.get_data().decode("utf-8-sig", "replace")
    wanted = preauthorizations.read_csv(text, with_secrets=query.with_secrets)
    settings = services().settings
    created = preauthorizations.create(actor(), wanted, settings.password_policy, names=settings.registration_usernames)
    secrets = [schemas.SecretView(username=record.username, secret=secret) for record, secret in created if secret]
    return render(schemas.UploadView(created=len(created), secrets=secrets)), 201


@preauthorization_blueprint.delete("/client-registry/preauthorizations/<id>", responses={204: None})
def delete_preauthorization(path: schemas.IdPath) -> Response:
    """Delete an unused preauthorization."""
    preauthorizations.delete(actor(), path.id)
    return Response(status=204)


@blueprint.get("/client-registry/refused-names", responses={200: schemas.RefusedNamePage})
def list_refused_names(query: schemas.PageQuery) -> dict[str, Any]:
    """List usernames with which devices tried to connect in the last 7 days and that cannot register, latest first."""
    found = refused_names.search(query.page, query.per_page)
    return render_page(found, _views(schemas.RefusedNameView, found.items))


@key_blueprint.get("/client-registry/enrolment-keys", responses={200: schemas.KeyPage})
def list_enrolment_keys(query: schemas.PageQuery) -> dict[str, Any]:
    """List enrolment keys without their secrets, newest first."""
    found = enrolment_keys.search(query.page, query.per_page)
    return render_page(found, _views(schemas.KeyView, found.items))


@key_blueprint.post("/client-registry/enrolment-keys", responses={201: schemas.NewKeyView})
def create_enrolment_key(body: schemas.KeyBody) -> tuple[dict[str, Any], int]:
    """Create an enrolment key; its secret is returned only once."""
    secret, record = enrolment_keys.create(
        actor(), body.label, body.uses, tuple(body.roles), body.expires_at, approval_required=body.approval_required
    )
    return render(schemas.NewKeyView.model_validate({**asdict(record), "secret": secret})), 201


@key_blueprint.delete("/client-registry/enrolment-keys/<id>", responses={204: None})
def revoke_enrolment_key(path: schemas.IdPath) -> Response:
    """Revoke an enrolment key."""
    enrolment_keys.revoke(actor(), path.id)
    return Response(status=204)


def _registration_request(body: schemas.RegisterBody) -> RegistrationRequest:
    return RegistrationRequest(
        username=body.username,
        password=body.password,
        csr=csr.read(body.csr, body.username) if body.csr is not None else None,
        context=body.context,
        requested_roles=tuple(body.roles),
        requested_permissions=tuple(each.fields() for each in permissions_from(body.permissions)),
        enrolment_key=body.enrolment_key,
        address=request.remote_addr,
    )


def _state(now: registry_lock.LockState) -> dict[str, Any]:
    fields = asdict(now) | {"locked": now.locked, "pending": records.count_pending(), "flood": unknown_names.flood()}
    return render(schemas.LockStateView.model_validate(fields, from_attributes=True))


def _views(schema: type[AnyView], found: Iterable[Any]) -> Iterator[AnyView]:
    return (schema.model_validate(record, from_attributes=True) for record in found)


def _registration(record: records.RegistrationRecord) -> dict[str, Any]:
    return render(*_views(schemas.RegistrationView, [record]))


def _bulk(done: list[records.RegistrationRecord], failed: list[Failure]) -> dict[str, Any]:
    failures = [schemas.FailureView(id=id_, code=error.code, detail=error.message) for id_, error in failed]
    items = list(_views(schemas.RegistrationView, done))
    return render(schemas.BulkView(count=len(done), items=items, failed=failures))
