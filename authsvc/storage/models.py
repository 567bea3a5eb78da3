"""The tables, with the constraints that the database enforces on every writer."""

from __future__ import annotations

import peewee

from authsvc.storage.fields import (
    CharField,
    ClientIdsField,
    FlagField,
    GrantTypesField,
    JsonField,
    Model,
    NumberedModel,
    TextField,
    UtcDateTimeField,
)


class User(NumberedModel):
    username = CharField(255, unique=True)
    password_hash = TextField(null=True)
    enabled = FlagField()
    grant_types = GrantTypesField()
    client_ids = ClientIdsField(default=())
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()
    # Equal for names that look alike; see `usernames.skeleton`.
    skeleton = TextField(null=True, index=True)
    origin = CharField(16, default="administrator", constraints=[peewee.SQL("DEFAULT 'administrator'")])
    last_seen_at = UtcDateTimeField(null=True)

    class Meta:
        table_name = "users"
        # As lists are sorted: an import gives many users the same time.
        indexes = (
            (("created_at", "username"), False),
            (("updated_at", "username"), False),
            (("last_seen_at", "username"), False),
        )


class Role(NumberedModel):
    name = CharField(64, unique=True)
    description = TextField()
    built_in = peewee.BooleanField()
    client_ids = ClientIdsField(default=())
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()

    class Meta:
        table_name = "roles"


class UserRole(Model):
    """A role of a user, given by an administrator or, if `from_groups`, by the user's groups at its provider."""

    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="user_roles")
    role = peewee.ForeignKeyField(Role, on_delete="RESTRICT", backref="user_roles")
    from_groups = peewee.BooleanField(default=False, constraints=[peewee.SQL("DEFAULT FALSE")])

    class Meta:
        table_name = "user_roles"
        primary_key = peewee.CompositeKey("user", "role", "from_groups")


class Identity(Model):
    """The account of a user at an OpenID provider or in a directory, which has confirmed it at `confirmed_at`.

    Until `confirmed_until` the user's API tokens are valid without another sign-in.
    """

    user = peewee.ForeignKeyField(User, primary_key=True, on_delete="CASCADE", backref="identities")
    issuer = peewee.CharField(500)
    subject = peewee.CharField(255)
    confirmed_at = UtcDateTimeField()
    confirmed_until = UtcDateTimeField()

    class Meta:
        table_name = "identities"
        indexes = ((("issuer", "subject"), True),)


class PermissionRow(NumberedModel):
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
    """An API token. `id` is public; `digest` is the digest of the token's secret.

    `version` is the token version that announced it: a process at an older version reads the token.
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
    """A browser session of an administrator; `digest` is the digest of the secret in the browser's cookie.

    A session started with an API token refers to it in `token` and is deleted with it. `id_token` is the OpenID
    provider's proof of the sign-in, which its own sign-out asks for.
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
    signed_in_by = CharField(16, default="password", constraints=[peewee.SQL("DEFAULT 'password'")])
    id_token = peewee.TextField(null=True)

    class Meta:
        table_name = "browser_sessions"


class SecondFactor(Model):
    """The second factor of a user; it is asked for once it is confirmed.

    `accounts.sign_in.second_factor` says how `secret` is stored. `last_step` is the time step of the last accepted
    code. `wrong_codes` counts the wrong codes since then, `wrong_at` is the time of the last one.
    """

    user = peewee.ForeignKeyField(User, primary_key=True, on_delete="CASCADE", backref="second_factors")
    secret = TextField()
    created_at = UtcDateTimeField()
    confirmed_at = UtcDateTimeField(null=True)
    last_step = peewee.BigIntegerField(default=0)
    wrong_codes = peewee.IntegerField(default=0)
    wrong_at = UtcDateTimeField(null=True)

    class Meta:
        table_name = "second_factors"


class RecoveryCode(NumberedModel):
    """A recovery code that was not used yet; `digest` is that of `salt` and code."""

    user = peewee.ForeignKeyField(User, on_delete="CASCADE", backref="recovery_codes")
    salt = peewee.CharField(32)
    digest = peewee.CharField(64)

    class Meta:
        table_name = "recovery_codes"


class SigningKeyRow(NumberedModel):
    kid = peewee.CharField(32, unique=True)
    secret = peewee.CharField(64)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "signing_keys"


class PolicyVersion(NumberedModel):
    """One row with the number of policy changes and the number of API tokens created.

    Each is raised in the transaction of the change that it announces.
    """

    version = peewee.BigIntegerField()
    token_version = peewee.BigIntegerField(constraints=[peewee.SQL("DEFAULT 0")])

    class Meta:
        table_name = "policy_version"


class PolicyChange(NumberedModel):
    """A snapshot entry that a policy version changed."""

    version = peewee.BigIntegerField(index=True)
    kind = peewee.CharField(16)
    name = peewee.CharField(255)

    class Meta:
        table_name = "policy_changes"


class AuditEvent(NumberedModel):
    """One change: who made it, how and when, the values before and after. Triggers in the database protect each row."""

    at = UtcDateTimeField(index=True)
    actor = peewee.CharField(255, index=True)
    via = peewee.CharField(16)
    address = peewee.CharField(64, null=True)
    request_id = peewee.CharField(64, null=True)
    action = peewee.CharField(64, index=True)
    target = peewee.CharField(300, index=True)
    before = JsonField(null=True)
    after = JsonField(null=True)

    class Meta:
        table_name = "audit_events"


class Authority(NumberedModel):
    """A certificate authority as PEM, with its latest CRL; the key is encrypted if a passphrase is set.

    `chain` leads from its certificate to a root that clients trust; it is empty for a root made by authsvc. From
    `retires_at` on it is no longer trusted. `crl_entries` is a digest of the CRL's entries, to detect changes.
    `announced_days` is the last threshold of `pki.expiry` that was announced.
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
    announced_days = peewee.IntegerField(null=True)

    class Meta:
        table_name = "authorities"


class Certificate(Model):
    """An issued client certificate. It is kept after its user is deleted, because the CRL must still list it.

    `revoked_at` can be in the future: after a renewal the old certificate ends with the overlap period.
    `announced_days` is the last threshold of `pki.expiry` that was announced.
    """

    serial = peewee.CharField(40, primary_key=True)
    # No index: SQLite would prefer it to the one of `revoked_at`, and most certificates have the same authority.
    authority = peewee.ForeignKeyField(Authority, on_delete="RESTRICT", backref="certificates", index=False)
    user = peewee.ForeignKeyField(User, null=True, on_delete="SET NULL", backref="certificates")
    username = peewee.CharField(255, index=True)
    fingerprint = peewee.CharField(64, index=True)
    certificate = peewee.TextField()
    not_before = UtcDateTimeField()
    not_after = UtcDateTimeField()
    created_at = UtcDateTimeField()
    revoked_at = UtcDateTimeField(null=True, index=True)
    reason = peewee.CharField(32, null=True)
    announced_days = peewee.IntegerField(null=True)

    class Meta:
        table_name = "certificates"
        indexes = ((("not_after", "serial"), False),)


class Attempt(Model):
    """The number of attempts under a key since a time, for throttling across all replicas."""

    key = peewee.CharField(300, primary_key=True)
    since = UtcDateTimeField(index=True)
    count = peewee.IntegerField()

    class Meta:
        table_name = "attempts"


class SignInAddress(Model):
    """A network (`addresses.network_of`) from which a user has signed in to the API or the web interface.

    `name` is a digest of the username, as in `Attempt.key`.
    """

    name = peewee.CharField(64)
    network = peewee.CharField(64)
    last_seen = UtcDateTimeField(index=True)

    class Meta:
        table_name = "sign_in_addresses"
        primary_key = peewee.CompositeKey("name", "network")


class ClientIdRow(Model):
    """A client id that a user has used on a broker in the last 30 days.

    `logged_in` is true if the user logged in with it or used a certificate. Otherwise only ACL requests named it, and
    an ACL request does not prove who the client is.
    """

    username = peewee.CharField(255)
    client_id = peewee.CharField(200)
    seen_at = UtcDateTimeField(index=True)
    logged_in = peewee.BooleanField(default=False, constraints=[peewee.SQL("DEFAULT FALSE")])

    class Meta:
        table_name = "sightings"
        primary_key = peewee.CompositeKey("username", "client_id")


class DenialRow(Model):
    """A denied request of a user in the last 7 days and its count; `digest` identifies the user and the request.

    `topic` is empty for a login. If `whole` is false, `topic` is only the beginning of the topic.
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
        indexes = ((("reason", "last_seen"), False),)


class DecisionStatsRow(Model):
    """The decisions of all workers and replicas in the five minutes from `at` on."""

    at = UtcDateTimeField(primary_key=True)
    logins = peewee.BigIntegerField()
    denied_logins = peewee.BigIntegerField()
    accesses = peewee.BigIntegerField()
    denials = peewee.BigIntegerField()

    class Meta:
        table_name = "history"


class DisconnectOrder(NumberedModel):
    """An order to end a user's MQTT sessions, written in the transaction of the change that requires it.

    A user has at most one open order. The worker that holds the `claim`, until `claimed_until`, attempts it at
    `due_at`. `ended` and `failed` are the client ids of the last attempt.
    """

    username = peewee.CharField(255)
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


class Broker(Model):
    """One start of a broker whose plugin reports its clients; `started_at` is the time of the first report.

    `name` is not unique: a broker that was restarted, or two brokers with the same configuration, have several rows.
    """

    boot = peewee.CharField(32, primary_key=True)
    name = CharField(64, index=True)
    plugin_version = CharField(32)
    generation = peewee.BigIntegerField()
    started_at = UtcDateTimeField()
    reported_at = UtcDateTimeField(index=True)

    class Meta:
        table_name = "brokers"


class LiveClient(Model):
    """A connection of an MQTT client, as the plugin of its broker reported it; `number` is unique within `boot`."""

    boot = peewee.ForeignKeyField(Broker, column_name="boot", on_delete="CASCADE", backref="clients")
    number = peewee.BigIntegerField()
    username = CharField(255, index=True)
    client_id = CharField(200, index=True)
    address = CharField(64, null=True)
    protocol = CharField(32)
    since = UtcDateTimeField()
    credential = CharField(32)

    class Meta:
        table_name = "live_clients"
        primary_key = peewee.CompositeKey("boot", "number")


class Notification(Model):
    """A webhook or a mail address that receives messages about events.

    `secret` signs the messages of a webhook; `notifications.signing_secrets` says how it is stored.
    """

    id = peewee.CharField(32, primary_key=True)
    name = CharField(100, unique=True)
    url = TextField()
    events = JsonField(accepts=lambda value: isinstance(value, list))
    enabled = FlagField()
    secret = TextField(null=True)
    created_at = UtcDateTimeField()
    updated_at = UtcDateTimeField()

    class Meta:
        table_name = "notifications"


class Delivery(NumberedModel):
    """A message for one notification, written in the transaction of its event.

    `scheduled_at` is the time of the first attempt, `due_at` of the next one. The worker that holds the `claim`, until
    `claimed_until`, makes it. `error` is that of the last attempt.
    """

    webhook_id = peewee.CharField(40, unique=True)
    notification = peewee.ForeignKeyField(Notification, on_delete="CASCADE", backref="deliveries")
    event = peewee.CharField(32)
    content = JsonField()
    created_at = UtcDateTimeField(index=True)
    scheduled_at = UtcDateTimeField()
    due_at = UtcDateTimeField()
    attempts = peewee.IntegerField(default=0)
    status = peewee.CharField(16)
    error = TextField(null=True)
    claim = peewee.CharField(32, null=True)
    claimed_until = UtcDateTimeField(null=True)
    finished_at = UtcDateTimeField(null=True, index=True)

    class Meta:
        table_name = "deliveries"
        indexes = ((("status", "due_at"), False),)


ALL = (
    User,
    Role,
    UserRole,
    Identity,
    PermissionRow,
    Token,
    BrowserSession,
    SecondFactor,
    RecoveryCode,
    SigningKeyRow,
    Authority,
    Certificate,
    Attempt,
    SignInAddress,
    ClientIdRow,
    DenialRow,
    DecisionStatsRow,
    DisconnectOrder,
    Broker,
    LiveClient,
    Notification,
    Delivery,
    PolicyVersion,
    PolicyChange,
    AuditEvent,
)
