"""Imports: upload another system's files, look at the plan and the notes, confirm."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Response, flash, request, url_for

from authsvc.admin.forms import validated
from authsvc.admin.pages import authorize_as, page_blueprint, redirect_to, render
from authsvc.api.policy.imports import DynsecBody, FilesBody, GoAuthBody, read, run
from authsvc.errors import AuthsvcError, Conflict, invalid
from authsvc.importing.notes import NoteKind
from authsvc.web.request_context import MAX_LARGE_BODY

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.policy_file.plan import Plan

blueprint = page_blueprint("import_page", __name__)

_KINDS = {"mosquitto": "Mosquitto files", "dynsec": "dynamic-security", "go-auth": "go-auth files"}
_BODIES: dict[str, type[FilesBody | DynsecBody]] = {"mosquitto": FilesBody, "dynsec": DynsecBody, "go-auth": GoAuthBody}
_FILES = {
    "mosquitto": {"passwords": "password_file", "acl": "acl_file"},
    "dynsec": {"file": "JSON file of dynamic-security"},
    "go-auth": {"passwords": "password file", "acl": "ACL file"},
}
_TITLES = {
    NoteKind.LEFT_OUT: "Left out",
    NoteKind.DIFFERS: "Decided differently by the other system",
    NoteKind.ATTENTION: "Please note",
}
_MAX_SHOWN = 200


@blueprint.before_request
def accept_large_fields() -> None:
    """Let the confirmation have the files in its fields."""
    request.max_form_memory_size = MAX_LARGE_BODY


def form(kind: str) -> Response:
    return _form(kind)


def plan(kind: str) -> Response:
    """Show what an import of the uploaded files would change, and its notes; nothing is changed."""
    uploaded = {name: request.files[name].read() for name in _FILES[kind] if request.files.get(name)}
    try:
        return _plan(kind, uploaded)
    except AuthsvcError as error:
        return _form(kind, error)


def confirm(kind: str) -> AnyResponse:
    """Import the files that were sent with the plan, unless that would change something else than the plan showed."""
    seen, files = request.form.get("seen", ""), {}

    def check(plan: Plan) -> None:
        if _fingerprint(plan) != seen:
            raise Conflict("users or roles were changed since; check the plan again", "policy-changed")

    try:
        files = {name: _decoded(name) for name in _FILES[kind] if name in request.form}
        result = run(read(_body(kind, files)), update=_update(), dry_run=False, check=check)
    except AuthsvcError as error:
        if error.code != "policy-changed":
            return _form(kind, error)
        return _plan(kind, files, error)
    counts = result.plan.counts()
    flash(
        f"Imported: {counts['created']:,} created, {counts['changed']:,} changed, {counts['left_alone']:,} left alone."
    )
    return redirect_to(url_for(f"import_page.form_{kind}"))


def _form(kind: str, error: AuthsvcError | None = None) -> Response:
    return render("admin/import.html", error=error, kind=kind, kinds=_KINDS, files=_FILES[kind])


def _plan(kind: str, files: dict[str, bytes], error: AuthsvcError | None = None) -> Response:
    result = run(read(_body(kind, files)), update=_update(), dry_run=True)
    notes = [
        (title, len(found), found[:_MAX_SHOWN])
        for note_kind, title in _TITLES.items()
        if (found := [note for note in result.notes if note.kind is note_kind])
    ]
    return render(
        "admin/import_plan.html",
        error=error,
        kind=kind,
        title=_KINDS[kind],
        plan=result.plan,
        counts=result.plan.counts(),
        most=_MAX_SHOWN,
        notes=notes,
        files={name: b64encode(content).decode() for name, content in files.items()},
        seen=_fingerprint(result.plan),
        update=_update(),
    )


def _body(kind: str, files: dict[str, bytes]) -> FilesBody | DynsecBody:
    """Return the uploaded files as the body of the API call; `InvalidInput` names the wrong file."""
    fields: dict[str, Any] = {}
    for name, content in files.items():
        try:
            fields[name] = content.decode()
        except UnicodeDecodeError:
            raise invalid(name, "is not UTF-8 text") from None
    if kind == "go-auth" and "saltEncoding" in request.form:
        fields["saltEncoding"] = request.form["saltEncoding"]
    return validated(_BODIES[kind], **fields)


def _decoded(name: str) -> bytes:
    try:
        return b64decode(request.form[name], validate=True)
    except ValueError:
        raise invalid(name, "is damaged; upload the file again") from None


def _update() -> bool:
    return "update" in request.form


def _fingerprint(plan: Plan) -> str:
    """Return a digest of the changes and of what is left alone, to compare what was shown with what would be done."""
    changes = [(change.kind, change.action, change.name, change.differences()) for change in plan.changes]
    text = json.dumps((changes, plan.left_alone), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


for _kind in _KINDS:
    _authorized = authorize_as("POST", f"/api/import/{_kind}")
    for _method, _path, _view in (("GET", "", form), ("POST", "/plan", plan), ("POST", "", confirm)):
        blueprint.add_url_rule(
            f"/import/{_kind}{_path}",
            f"{_view.__name__}_{_kind}",
            _authorized(partial(_view, _kind)),
            methods=[_method],
        )
