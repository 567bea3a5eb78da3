"""The tables. Rules live elsewhere; what stands here is what must hold whoever writes."""

from __future__ import annotations

import peewee

from authsvc.storage.fields import (
    CharField,
    ClientIdsField,
    FlagField,
    GrantTypesField,
    JsonField,
    Model,
    Numbered,
    TextField,
    UtcDateTimeField,
)


class User(Numbered):
    username = CharField(64, unique=True)
    password_hash = TextField(null=True)
    enabled = FlagField()
    grant_types = GrantTypesField()
    client_ids = ClientIdsField(default=())
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()
    # What look-alike names are found by; see `usernames.skeleton`.
    skeleton = TextField(null=True, index=True)

    class Meta:
        table_name = "users"


class Role(Numbered):
    name = CharField(64, unique=True)
    description = TextField()
    built_in = peewee.BooleanField()
    client_ids = ClientIdsField(default=())
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()

    class Meta:
        table_name = "roles"


class UserRole(Model):
    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="user_roles")
    role = peewee.ForeignKeyField(Role, on_delete="RESTRICT", backref="user_roles")

    class Meta:
        table_name = "user_roles"
        primary_key = peewee.CompositeKey("user", "role")


class PermissionRow(Numbered):
    """A permission of exactly one user or one role."""

    user = peewee.ForeignKeyField(User, null=True, on_delete="CASCADE", backref="permissions")
    role = peewee.ForeignKeyField(Role, null=True, on_delete="CASCADE", backref="permissions")
    context = CharField(16, index=True)
    operation = CharField(16)
    resource = TextField()
    effect = CharField(16)

    class Meta:
        table_name = "permissions"
        constraints = [peewee.Check("(user_id IS NULL) <> (role_id IS NULL)")]


class Token(Model):
    """An API token: `id` names it in public, `digest` is that of the secret inside it.

    `version` is the token version that announced it; readers that have seen less read it.
    """

    id = peewee.CharField(32, primary_key=True)
    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="tokens")
    digest = peewee.CharField(64, unique=True)
    label = peewee.CharField(200)
    created_at = UtcDateTimeField()
    expires_at = UtcDateTimeField()
    last_used_at = UtcDateTimeField(null=True)
    version = peewee.BigIntegerField(index=True, constraints=[peewee.SQL("DEFAULT 0")])

    class Meta:
        table_name = "tokens"


class BrowserSession(Model):
    """Somebody signed in at the administrator's page; `digest` is that of the secret which the browser keeps.

    One that was begun with an API token has its `token`, and goes when that does.
    """

    id = peewee.CharField(32, primary_key=True)
    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="browser_sessions")
    token = peewee.ForeignKeyField(Token, null=True, on_delete="CASCADE", backref="browser_sessions")
    digest = peewee.CharField(64, unique=True)
    created_at = UtcDateTimeField()
    last_seen_at = UtcDateTimeField()
    expires_at = UtcDateTimeField(index=True)
    address = peewee.CharField(64, null=True)
    browser = peewee.CharField(200)

    class Meta:
        table_name = "browser_sessions"


class SigningKeyRow(Numbered):
    kid = peewee.CharField(32, unique=True)
    secret = peewee.CharField(64)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "signing_keys"


class PolicyVersion(Numbered):
    """One row: how many changes of policy there were, and apart from them how many API tokens were made.

    Each is raised in the transaction of the change that it announces.
    """

    version = peewee.BigIntegerField()
    token_version = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 0")])

    class Meta:
        table_name = "policy_version"


class PolicyChange(Numbered):
    """What a policy version changed: whose snapshot entry is to be read again."""

    version = peewee.BigIntegerField(index=True)
    kind = peewee.CharField(16)
    name = peewee.CharField(64)

    class Meta:
        table_name = "policy_changes"


class AuditEvent(Numbered):
    """One change: who, how, when, and what it was before and after. The database itself refuses to alter a row."""

    at = UtcDateTimeField(index=True)
    actor = peewee.CharField(64, index=True)
    via = peewee.CharField(16)
    address = peewee.CharField(64, null=True)
    request_id = peewee.CharField(64, null=True)
    action = peewee.CharField(64, index=True)
    target = peewee.CharField(200, index=True)
    before = JsonField(null=True)
    after = JsonField(null=True)

    class Meta:
        table_name = "audit_events"


class Authority(Numbered):
    """A certificate authority as PEM, with its latest revocation list; the key is encrypted if a passphrase is set.

    `chain` leads from its certificate to a root that clients know; empty for a root of our own. `retires_at` is when
    nobody needs to trust it any more. `crl_entries` is a digest of the list's entries, to see whether they changed.
    """

    certificate = peewee.TextField()
    chain = peewee.TextField()
    key = peewee.TextField()
    created_at = UtcDateTimeField()
    retires_at = UtcDateTimeField(null=True)
    crl = peewee.TextField(null=True)
    crl_number = peewee.IntegerField(default=0)
    crl_entries = peewee.CharField(64, default="")
    crl_this_update = UtcDateTimeField(null=True)
    crl_next_update = UtcDateTimeField(null=True)
    crl_policy_version = peewee.BigIntegerField(default=0)

    class Meta:
        table_name = "authorities"


class Certificate(Model):
    """A client certificate of ours; it outlives its user, since a revocation list must still name it.

    `revoked_at` may lie ahead: the old certificate of a renewed pair ends when their overlap does.
    """

    serial = peewee.CharField(40, primary_key=True)
    authority = peewee.ForeignKeyField(Authority, on_delete="RESTRICT", backref="certificates")
    user = peewee.ForeignKeyField(User, null=True, on_delete="SET NULL", backref="certificates")
    username = peewee.CharField(64, index=True)
    fingerprint = peewee.CharField(64, index=True)
    certificate = peewee.TextField()
    not_before = UtcDateTimeField()
    not_after = UtcDateTimeField(index=True)
    created_at = UtcDateTimeField()
    revoked_at = UtcDateTimeField(null=True, index=True)
    reason = peewee.CharField(32, null=True)

    class Meta:
        table_name = "certificates"


class Attempt(Model):
    """How often something was tried since a moment; for throttling that all replicas agree on."""

    key = peewee.CharField(200, primary_key=True)
    since = UtcDateTimeField(index=True)
    count = peewee.IntegerField()

    class Meta:
        table_name = "attempts"


class SignInAddress(Model):
    """A network (`addresses.network_of`) from which a name has signed in at the API or the page.

    `name` is a digest, as in the keys of attempts.
    """

    name = peewee.CharField(64)
    network = peewee.CharField(64)
    last_seen = UtcDateTimeField(index=True)

    class Meta:
        table_name = "sign_in_addresses"
        primary_key = peewee.CompositeKey("name", "network")


class ClientIdRow(Model):
    """A client id that a user was lately seen with on a broker.

    `logged_in` says that it was at a login, or used a certificate. Other sightings are of accesses only, and whoever
    asks about an access has not proved to be the user.
    """

    username = peewee.CharField(64)
    client_id = peewee.CharField(200)
    seen_at = UtcDateTimeField(index=True)
    logged_in = peewee.BooleanField(default=False, constraints=[peewee.SQL("DEFAULT FALSE")])

    class Meta:
        table_name = "sightings"
        primary_key = peewee.CompositeKey("username", "client_id")


class DenialRow(Model):
    """What a user was lately denied, and how often; `digest` is of the user and the whole of what it asked for.

    `topic` is empty for a login, and no more than the beginning of one that is not `whole`.
    """

    digest = peewee.CharField(32, primary_key=True)
    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="denials")
    client_id = peewee.CharField(200)
    topic = peewee.TextField()
    whole = peewee.BooleanField()
    access = peewee.SmallIntegerField()
    reason = peewee.CharField(32)
    count = peewee.BigIntegerField()
    first_seen = UtcDateTimeField()
    last_seen = UtcDateTimeField(index=True)

    class Meta:
        table_name = "denials"


class DecisionStatsRow(Model):
    """How many decisions there were in the five minutes from a moment on, over all workers and replicas."""

    at = UtcDateTimeField(primary_key=True)
    logins = peewee.BigIntegerField()
    denied_logins = peewee.BigIntegerField()
    accesses = peewee.BigIntegerField()
    denials = peewee.BigIntegerField()

    class Meta:
        table_name = "history"


class DisconnectOrder(Numbered):
    """An order to end a user's MQTT sessions: written with the change that calls for it, carried out by one worker.

    A user has at most one that is not finished. It is next attempted at `due_at`, by the worker whose `claim` it bears
    until `claimed_until`. `ended` and `failed` are client ids, as of the last attempt.
    """

    username = peewee.CharField(64)
    cause = peewee.CharField(64)
    requested_at = UtcDateTimeField()
    due_at = UtcDateTimeField()
    attempts = peewee.IntegerField(default=0)
    claim = peewee.CharField(32, null=True)
    claimed_until = UtcDateTimeField(null=True)
    finished_at = UtcDateTimeField(null=True)
    ended = JsonField(default=list)
    failed = JsonField(default=list)

    class Meta:
        table_name = "session_endings"


DisconnectOrder.add_index(
    DisconnectOrder.username, name="session_endings_open", unique=True, where=DisconnectOrder.finished_at.is_null()
)


ALL = (
    User,
    Role,
    UserRole,
    PermissionRow,
    Token,
    BrowserSession,
    SigningKeyRow,
    Authority,
    Certificate,
    Attempt,
    SignInAddress,
    ClientIdRow,
    DenialRow,
    DecisionStatsRow,
    DisconnectOrder,
    PolicyVersion,
    PolicyChange,
    AuditEvent,
)
