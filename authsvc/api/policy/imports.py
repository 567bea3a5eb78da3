"""Imports over REST: the content of another system's files as JSON, the plan and the notes as the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from authsvc.api.policy.plans import PlanQuery, PlanView, permit, render_plan
from authsvc.api.schemas import Body, Text, View, noun
from authsvc.importing import dynsec, go_auth, mosquitto
from authsvc.importing.moving_in import move_in
from authsvc.web.request_context import MAX_LARGE_BODY, actor

if TYPE_CHECKING:
    from authsvc.importing.imported import Imported
    from authsvc.importing.moving_in import ImportResult
    from authsvc.policy_file.plan import Permit, Plan

MAX_NOTES = 1000

blueprint = noun("import", "Users, password hashes and rules of Mosquitto, dynamic-security and go-auth")

Content = Annotated[Text, Field(max_length=MAX_LARGE_BODY)]
"""The content of a file, which is UTF-8."""


class ImportQuery(PlanQuery):
    update: bool = Field(False, description="change users and roles that exist; otherwise they are left alone")


class FilesBody(Body):
    """A password file, an ACL file, or both."""

    passwords: Content | None = Field(None, description="the content of the password file")
    acl: Content | None = Field(None, description="the content of the ACL file")

    @model_validator(mode="after")
    def has_a_file(self) -> FilesBody:
        """Refuse a request without any file."""
        if self.passwords is None and self.acl is None:
            raise ValueError("passwords, acl or both are required")
        return self

    def content(self) -> tuple[bytes | None, bytes | None]:
        """Return both files; one that was not given is None."""
        return (
            None if self.passwords is None else self.passwords.encode(),
            None if self.acl is None else self.acl.encode(),
        )


class GoAuthBody(FilesBody):
    """The files of go-auth's files backend."""

    salt_encoding: Literal["base64", "utf-8"] = Field("base64", description="go-auth's hasher_salt_encoding")


class DynsecBody(Body):
    """The JSON file of the dynamic-security plugin."""

    file: Content = Field(description="the content of the file, as text")


class NoteView(View):
    """One line that cannot be expressed, or one case that the other system decides differently."""

    kind: Literal["leftOut", "differs", "attention"]
    place: str = Field(description="a line such as `acl_file line 12`, or a JSON path; empty for the whole import")
    message: str
    question: Literal["connect", "publish", "subscribe", "receive"] | None = Field(
        description="of a difference: what is answered differently"
    )
    topic_filter: str | None = Field(
        description="of a difference: the topics; `$` stands for all that begin with $, null for all"
    )
    users: list[str] = Field(description="the first 20 users concerned; all imported ones if `userCount` is 0")
    user_count: int


class ImportView(PlanView):
    """What was changed, or with `dryRun` would be, and up to 1,000 notes."""

    notes: list[NoteView]
    note_count: int


@blueprint.post("/import/mosquitto", responses={200: ImportView})
def import_mosquitto(query: ImportQuery, body: FilesBody) -> dict[str, Any]:
    """Import Mosquitto's password_file and acl_file: all of it or nothing, in one transaction.

    For each change the caller needs the permission to make it at its own path, such as `http write /api/users`.
    """
    return _answer(body, query)


@blueprint.post("/import/dynsec", responses={200: ImportView})
def import_dynsec(query: ImportQuery, body: DynsecBody) -> dict[str, Any]:
    """Import the JSON file of Mosquitto's dynamic-security plugin: all of it or nothing, in one transaction."""
    return _answer(body, query)


@blueprint.post("/import/go-auth", responses={200: ImportView})
def import_go_auth(query: ImportQuery, body: GoAuthBody) -> dict[str, Any]:
    """Import go-auth's files: all of it or nothing, in one transaction.

    Its tables are read by `authsvc import go-auth` on the command line only.
    """
    return _answer(body, query)


def read(body: FilesBody | DynsecBody) -> Imported:
    """Return what the files of a request say; `InvalidInput` if they are of another format."""
    if isinstance(body, DynsecBody):
        return dynsec.read(body.file.encode())
    if isinstance(body, GoAuthBody):
        return go_auth.read_files(*body.content(), salt_is_text=body.salt_encoding == "utf-8")
    return mosquitto.read(*body.content())


def run(imported: Imported, *, update: bool, dry_run: bool, check: Permit | None = None) -> ImportResult:
    """Put the imported users and roles into force as the caller, or with `dry_run` only plan it.

    `check` is called with the plan before anything is written.
    """

    def permit_and_check(plan: Plan) -> None:
        permit(plan)
        if check:
            check(plan)

    return move_in(actor(), imported, update=update, dry_run=dry_run, permit=permit_and_check)


def _answer(body: FilesBody | DynsecBody, query: ImportQuery) -> dict[str, Any]:
    result = run(read(body), update=query.update, dry_run=query.dry_run)
    notes = [note.fields() for note in result.notes[:MAX_NOTES]]
    return render_plan(result.plan, dry_run=query.dry_run) | {"notes": notes, "noteCount": len(result.notes)}
