"""Settings: an unknown or malformed one stops the start with one line that contains no secret."""

from __future__ import annotations

import re
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from authsvc.credentials.passwords import PasswordPolicy
from authsvc.credentials.usernames import RegistrationNames
from authsvc.errors import SettingsError
from authsvc.settings import PREFIX, SECRETS, Settings, from_environment, names, set_by_kubernetes

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "settings.md"
HUNTER2 = "hunter2"


def refusal(**variables: str) -> str:
    """Return the error line for these variables, given without their prefix."""
    with pytest.raises(SettingsError) as error:
        from_environment({PREFIX + name: value for name, value in variables.items()})
    assert "\n" not in error.value.message
    return error.value.message


def test_defaults_are_valid() -> None:
    settings = from_environment({})
    assert settings.data_dir == Path("data").absolute()
    assert settings.database_url == f"sqlite:///{settings.data_dir}/authsvc.db"
    assert (settings.bind, settings.bcrypt_cost, settings.workers) == ("127.0.0.1:8080", 10, 1)
    assert settings.admin_password is None
    assert settings.webhook_secret is None
    assert settings.password_policy == PasswordPolicy(min=5, lower=0, upper=0, numeric=0, symbol=0)


def test_unset_variables_leave_the_defaults_of_the_record() -> None:
    settings = from_environment({})
    defaults = Settings(settings.data_dir, settings.database_url, hash_workers=settings.hash_workers)
    assert settings == defaults


def test_every_setting_can_be_set() -> None:
    given = {
        "DATA_DIR": "/srv/authsvc",
        "DATABASE_URL": "postgresql://authsvc:hunter2@db/authsvc",
        "ADMIN_PASSWORD": "a first secret",
        "WEBHOOK_SECRET": "a second secret",
        "BIND": "[::1]:9000",
        "BROKER_BIND": "[::1]:9001",
        "BCRYPT_COST": "12",
        "PASSWORD_POLICY": '{"min": 8, "symbol": 1}',
        "WORKERS": "4",
        "API_WORKERS": "2",
        "CONNECTIONS_PER_ADDRESS": "100",
        "THREADS": "32",
        "HASH_WORKERS": "3",
        "CREDENTIAL_CACHE_ENTRIES": "10",
        "POLICY_POLL_MS": "100",
        "TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8",
        "SESSION_IDLE_MINUTES": "5",
        "SESSION_HOURS": "8",
        "WRONG_PASSWORDS_PER_MINUTE": "3",
        "TOKEN_MAX_DAYS": "90",
        "TOKENS_PER_MINUTE": "6",
        "SECOND_FACTOR": "required",
        "LOG_LEVEL": "debug",
        "HASH_QUEUE": "50",
        "CONNECT_BUDGET_MS": "0",
        "ANSWER_CACHE_ENTRIES": "11",
        "CA_KEY_PASSPHRASE": "a third secret",
        "CRL_DAYS": "1",
        "RENEWAL_OVERLAP_HOURS": "0",
        "BROKER_URL": "mqtts://authsvc:hunter2@broker:8883",
        "BROKER_CA_FILE": "/etc/ssl/broker.pem",
        "MUTUAL_TLS": "yes",
        "CERTIFICATE_DAYS": "30",
        "SMTP_URL": "smtps://authsvc:hunter2@mail.example",
        "SMTP_FROM": "authsvc@plant.example",
        "NOTIFY_PRIVATE": "yes",
        "REGISTRATION_USERNAMES": "any",
        "KEEP_FOREIGN_HASHES": "yes",
        "LOCAL_SIGN_IN": "loopback",
        "OIDC_ISSUER": "https://sso.example/realms/plant",
        "OIDC_CLIENT_ID": "authsvc",
        "OIDC_CLIENT_SECRET": "a fourth secret",
        "OIDC_NAME": "the plant",
        "OIDC_SCOPES": "openid groups",
        "OIDC_USERNAME_CLAIM": "upn",
        "OIDC_GROUPS_CLAIM": "roles",
        "OIDC_ROLES": '{"plant-admins": ["admin"]}',
        "OIDC_MAX_AGE_DAYS": "7",
        "OIDC_CA_FILE": "/etc/ssl/company.pem",
        "LDAP_URL": "ldaps://a.example, ldap+starttls://b.example:390 ldap://localhost",
        "LDAP_CA_FILE": "/etc/ssl/company.pem",
        "LDAP_BIND_DN": "cn=authsvc,dc=plant",
        "LDAP_BIND_PASSWORD": "a fifth secret",
        "LDAP_USER_BASE": "ou=people,dc=plant",
        "LDAP_USER_FILTER": "(sAMAccountName={username})",
        "LDAP_GROUP_BASE": "ou=groups,dc=plant",
        "LDAP_ROLES": '{"cn=admins,dc=plant": ["admin", "operator"]}',
        "LDAP_MAX_AGE_DAYS": "8",
        "REGISTRY_CAPTURE_WHILE_LOCKED": "false",
        "REGISTRY_PENDING_TTL_HOURS": "48",
        "REGISTRY_MAX_PENDING": "7",
        "REGISTRY_MAX_LOCKED": "6",
        "REGISTRY_ATTEMPTS_PER_MINUTE": "8",
        "REGISTRY_ADDRESS_ATTEMPTS_PER_MINUTE": "9",
        "REGISTRY_NAMES_PER_MINUTE": "10",
        "REGISTRY_MAX_REQUEST_BYTES": "4096",
    }
    assert {PREFIX + name for name in given} == set(names())
    assert from_environment({PREFIX + name: value for name, value in given.items()}) == Settings(
        data_dir=Path("/srv/authsvc"),
        database_url="postgresql://authsvc:hunter2@db/authsvc",
        admin_password="a first secret",
        webhook_secret="a second secret",
        bind="[::1]:9000",
        broker_bind="[::1]:9001",
        bcrypt_cost=12,
        password_policy=PasswordPolicy(min=8, symbol=1),
        workers=4,
        api_workers=2,
        connections_per_address=100,
        threads=32,
        hash_workers=3,
        credential_cache_entries=10,
        policy_poll_ms=100,
        trusted_proxies=(ip_network("127.0.0.1"), ip_network("10.0.0.0/8")),
        session_idle_minutes=5,
        session_hours=8,
        wrong_passwords_per_minute=3,
        token_max_days=90,
        tokens_per_minute=6,
        second_factor="required",
        log_level="debug",
        hash_queue=50,
        connect_budget_ms=0,
        answer_cache_entries=11,
        ca_key_passphrase="a third secret",
        crl_days=1,
        renewal_overlap_hours=0,
        broker_url="mqtts://authsvc:hunter2@broker:8883",
        broker_ca_file="/etc/ssl/broker.pem",
        mutual_tls=True,
        certificate_days=30,
        smtp_url="smtps://authsvc:hunter2@mail.example",
        smtp_from="authsvc@plant.example",
        notify_private=True,
        registration_usernames=RegistrationNames.ANY,
        keep_foreign_hashes=True,
        local_sign_in="loopback",
        oidc_issuer="https://sso.example/realms/plant",
        oidc_client_id="authsvc",
        oidc_client_secret="a fourth secret",
        oidc_name="the plant",
        oidc_scopes="openid groups",
        oidc_username_claim="upn",
        oidc_groups_claim="roles",
        oidc_roles={"plant-admins": ("admin",)},
        oidc_max_age_days=7,
        oidc_ca_file="/etc/ssl/company.pem",
        ldap_url=("ldaps://a.example", "ldap+starttls://b.example:390", "ldap://localhost"),
        ldap_ca_file="/etc/ssl/company.pem",
        ldap_bind_dn="cn=authsvc,dc=plant",
        ldap_bind_password="a fifth secret",
        ldap_user_base="ou=people,dc=plant",
        ldap_user_filter="(sAMAccountName={username})",
        ldap_group_base="ou=groups,dc=plant",
        ldap_roles={"cn=admins,dc=plant": ("admin", "operator")},
        ldap_max_age_days=8,
        registry_capture_while_locked=False,
        registry_pending_ttl_hours=48,
        registry_max_pending=7,
        registry_max_locked=6,
        registry_attempts_per_minute=8,
        registry_address_attempts_per_minute=9,
        registry_names_per_minute=10,
        registry_max_request_bytes=4096,
    )


@pytest.mark.parametrize(
    "url", ["smtp://mail", "smtp://mail:2525/", "smtp://a:b@localhost", "smtp://a:b@[::1]:25", "smtp+starttls://a:b@m"]
)
def test_smtp_url(url: str) -> None:
    assert from_environment({"AUTHSVC_SMTP_URL": url}).smtp_url == url


@pytest.mark.parametrize(
    ("name", "value", "missing"),
    [
        ("OIDC_ISSUER", "https://sso.example", "AUTHSVC_OIDC_CLIENT_ID and AUTHSVC_OIDC_ROLES"),
        ("OIDC_CLIENT_ID", "authsvc", "AUTHSVC_OIDC_ISSUER"),
        ("LDAP_URL", "ldaps://a.example", "AUTHSVC_LDAP_USER_BASE and AUTHSVC_LDAP_ROLES"),
        ("LDAP_BIND_DN", "cn=authsvc", "AUTHSVC_LDAP_URL and AUTHSVC_LDAP_BIND_PASSWORD"),
        ("LDAP_USER_BASE", "dc=plant", "AUTHSVC_LDAP_URL"),
    ],
)
def test_setting_that_means_nothing_without_others_names_them(name: str, value: str, missing: str) -> None:
    assert refusal(**{name: value}) == f"AUTHSVC_{name} needs {missing} too"


def test_variables_of_other_programs_are_ignored() -> None:
    assert from_environment({"PATH": "/bin", "AUTH": "x", "authsvc_bind": "y", "XAUTHSVC_BIND": "z"})


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("BIND", ["8080", "x", "x:", ":8080", "x:y", "x:65536", "x:-1", "::1:80", "a b:80", "x:80\n"], "ADDRESS:PORT"),
        ("BCRYPT_COST", ["3", "17", "ten", "10.0", "-10", " 10", "1e1", "٤", "9" * 30], "whole number from 4 to 16"),
        ("WORKERS", ["0", "65"], "whole number from 1 to 64"),
        ("API_WORKERS", ["0", "65"], "whole number from 1 to 64"),
        ("CONNECTIONS_PER_ADDRESS", ["0", "65537"], "whole number from 1 to 65536"),
        ("THREADS", ["1", "257"], "whole number from 2 to 256"),
        ("HASH_WORKERS", ["0", "65"], "whole number from 1 to 64"),
        ("CREDENTIAL_CACHE_ENTRIES", ["0", "10000001"], "whole number from 1 to 10000000"),
        ("POLICY_POLL_MS", ["19", "1001"], "whole number from 20 to 1000"),
        ("HASH_QUEUE", ["0", "1000001"], "whole number from 1 to 1000000"),
        ("CONNECT_BUDGET_MS", ["-1", "4001"], "whole number from 0 to 4000"),
        ("ANSWER_CACHE_ENTRIES", ["0", "10000001"], "whole number from 1 to 10000000"),
        ("CRL_DAYS", ["0", "366"], "whole number from 1 to 365"),
        ("RENEWAL_OVERLAP_HOURS", ["-1", "8761"], "whole number from 0 to 8760"),
        ("MUTUAL_TLS", ["true", "1", "YES"], "one of yes, no"),
        ("BROKER_URL", ["broker", "http://a:b@c", "mqtt://broker", "mqtt://user@broker"], "mqtt://USER:PASSWORD@HOST"),
        ("BROKER_URL", ["mqtt://hunter2:@broker", "mqtt://a:hunter2@", "mqtt://a:hunter2@b c"], "mqtt://USER:PASSWORD"),
        ("SMTP_URL", ["mail", "http://mail", "smtp://", "smtp://a:hunter2@", "smtp://user@mail"], "smtp://HOST[:PORT]"),
        ("SMTP_URL", ["smtp://mail/x", "smtp://a b", "smtps://a:hunter2@[x]", "smtp://m:x"], "smtp://HOST[:PORT]"),
        ("SMTP_URL", ["smtp://a:hunter2@mail", "smtp://a:hunter2@192.0.2.1:25"], "smtps:// or smtp+starttls://"),
        ("SMTP_FROM", ["authsvc", "a@b c", "a@b\nBcc: c@d", "<a@b>", "a@b,c@d"], "a mail address"),
        ("NOTIFY_PRIVATE", ["true", "1", "YES"], "one of yes, no"),
        ("LOCAL_SIGN_IN", ["yes", "localhost"], "one of anywhere, loopback"),
        ("OIDC_ISSUER", ["sso", "http://sso.example", "https://", "https://a?b", "ftp://localhost"], "https:// URL"),
        ("OIDC_SCOPES", ["profile", "openidx", "openid\n"], "scopes with openid among them"),
        ("OIDC_MAX_AGE_DAYS", ["0", "3651"], "whole number from 1 to 3650"),
        ("OIDC_ROLES", ["hunter2", "[]", "{}", '{"a": "admin"}'], "JSON object of groups and their roles"),
        (
            "OIDC_ROLES",
            ['{"a": []}', '{"a": [1]}', '{"a": ["a b"]}', '{"a": [""]}'],
            "at least one role for the group 'a'",
        ),
        ("LDAP_URL", ["ldap", "http://a", "ldaps://a:x", "ldaps://a/dc=b", "ldaps://u:p@a"], "ldaps://HOST[:PORT]"),
        ("LDAP_URL", ["ldap://a.example", "ldaps://a,ldap://192.0.2.1"], "ldaps:// or ldap+starttls://"),
        ("LDAP_USER_FILTER", ["uid={username}", "(uid=alice)"], "a filter with {username}"),
        ("LDAP_ROLES", ["x"], "JSON object of groups and their roles"),
        ("LDAP_MAX_AGE_DAYS", ["0", "3651"], "whole number from 1 to 3650"),
        ("CERTIFICATE_DAYS", ["0", "3651"], "whole number from 1 to 3650"),
        ("REGISTRY_CAPTURE_WHILE_LOCKED", ["yes", "1", "True", "no", "FALSE"], "one of true, false"),
        ("REGISTRY_PENDING_TTL_HOURS", ["0", "8761"], "whole number from 1 to 8760"),
        ("REGISTRY_MAX_PENDING", ["0", "100001"], "whole number from 1 to 100000"),
        ("TOKEN_MAX_DAYS", ["0", "36501", "x"], "whole number from 1 to 36500"),
        ("TOKENS_PER_MINUTE", ["0", "1000001"], "whole number from 1 to 1000000"),
        ("REGISTRY_MAX_LOCKED", ["0", "10001"], "whole number from 1 to 10000"),
        ("REGISTRY_ATTEMPTS_PER_MINUTE", ["0", "10001"], "whole number from 1 to 10000"),
        ("REGISTRY_ADDRESS_ATTEMPTS_PER_MINUTE", ["0", "10001"], "whole number from 1 to 10000"),
        ("REGISTRY_NAMES_PER_MINUTE", ["0", "10001"], "whole number from 1 to 10000"),
        ("REGISTRY_MAX_REQUEST_BYTES", ["1023", "4194305"], "whole number from 1024 to 4194304"),
        ("LOG_LEVEL", ["loud", "INFO", "info "], "one of debug, info, warning, error"),
        ("PASSWORD_POLICY", ["{", "hunter2", "{'min': 5}"], "JSON object"),
        ("PASSWORD_POLICY", ["5", "[]", "null", '{"minimum": 5}', '"min"', '["min"]'], "JSON object with min, lower"),
        (
            "PASSWORD_POLICY",
            ['{"min": -1}', '{"min": 73}', '{"min": "5"}', '{"min": 5.0}'],
            "whole numbers from 0 to 72",
        ),
        ("PASSWORD_POLICY", ['{"min": true}', '{"lower": null}', '{"upper": [1]}'], "whole numbers from 0 to 72"),
        (
            "DATABASE_URL",
            ["mysql://root:hunter2@db/x", "sqlite://x.db", "sqlite:///", "/x.db"],
            "sqlite:///PATH or post",
        ),
        ("DATABASE_URL", ["postgresql://", "postgres:x", "POSTGRESQL://db/x", "hunter2"], "sqlite:///PATH or post"),
    ],
)
def test_error_for_a_malformed_value_is_one_line_that_names_the_setting_and_not_the_value(
    name: str, values: list[str], line: str
) -> None:
    for value in values:
        message = refusal(**{name: value})
        assert message.startswith(PREFIX + name + " must ")
        assert line in message
        assert HUNTER2 not in message


@pytest.mark.parametrize("name", [name.removeprefix(PREFIX) for name in names()])
def test_a_setting_that_is_set_is_not_empty(name: str) -> None:
    assert refusal(**{name: ""}) == f"{PREFIX}{name} is set but empty; unset it or give it a value"


@pytest.mark.parametrize(
    "name", ["SECRET", "WEBHOOKSECRET", "", "webhook_secret", "BIND_FILE", "WEBHOOK_SECRET_FILE_FILE", "_FILE", "HOST"]
)
def test_error_for_an_unknown_setting_has_its_name_only(name: str) -> None:
    message = refusal(**{name: HUNTER2})
    assert message.startswith(PREFIX + name + " is not a setting of authsvc")
    assert HUNTER2 not in message


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_read_from_a_file_without_its_last_newline(name: str, tmp_path: Path) -> None:
    urls = {"DATABASE_URL": "sqlite:////srv/authsvc.db", "BROKER_URL": "mqtt://authsvc:hunter2@broker"}
    urls["SMTP_URL"] = "smtp+starttls://authsvc:hunter2@mail"
    secret = urls.get(name, " hunter2 ")
    for ending in ("", "\n", "\r\n"):
        (tmp_path / "secret").write_bytes((secret + ending).encode())
        settings = from_environment({f"{PREFIX}{name}_FILE": str(tmp_path / "secret")})
        assert getattr(settings, name.lower()) == secret


@pytest.mark.parametrize("name", SECRETS)
def test_secret_set_directly_and_by_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(HUNTER2)
    message = refusal(**{name: HUNTER2, f"{name}_FILE": str(tmp_path / "secret")})
    assert message == f"{PREFIX}{name} is set twice, also as {PREFIX}{name}_FILE"


@pytest.mark.parametrize("name", SECRETS)
def test_error_for_an_unreadable_file_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff" + HUNTER2.encode())
    for path, cause in (
        (tmp_path / "missing", "FileNotFoundError"),
        (tmp_path, "IsADirectoryError"),
        (tmp_path / "binary", "UnicodeDecodeError"),
    ):
        message = refusal(**{f"{name}_FILE": str(path)})
        assert message == f"{PREFIX}{name}_FILE: cannot read {path}: {cause}"


@pytest.mark.parametrize("name", SECRETS)
def test_empty_secret_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    message = refusal(**{f"{name}_FILE": str(tmp_path / "empty")})
    assert message == f"{PREFIX}{name} is set but empty; unset it or give it a value"


def test_error_does_not_contain_a_malformed_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("mysql://root:hunter2@db/x")
    assert HUNTER2 not in refusal(DATABASE_URL_FILE=str(tmp_path / "url"))


def test_repr_of_settings_contains_no_secret(tmp_path: Path) -> None:
    settings = Settings(tmp_path, "postgresql://x:hunter2@db/x", admin_password=HUNTER2, webhook_secret=HUNTER2)
    assert HUNTER2 not in f"{settings!r} {settings}"


def test_port_must_be_ascii_digits() -> None:
    assert refusal(BIND="127.0.0.1:\u0668\u0660")


def test_deeply_nested_password_policy_is_refused_in_one_line() -> None:
    assert refusal(PASSWORD_POLICY="[" * 100_000)


BY_KUBERNETES = {
    "AUTHSVC_SERVICE_HOST": "10.0.0.11",
    "AUTHSVC_SERVICE_PORT": "8080",
    "AUTHSVC_SERVICE_PORT_API": "8080",
    "AUTHSVC_SERVICE_PORT_BROKER_2": "8070",
    "AUTHSVC_PORT": "tcp://10.0.0.11:8080",
    "AUTHSVC_PORT_8080_TCP": "tcp://10.0.0.11:8080",
    "AUTHSVC_PORT_8080_TCP_PROTO": "tcp",
    "AUTHSVC_PORT_8080_TCP_PORT": "8080",
    "AUTHSVC_PORT_8080_TCP_ADDR": "10.0.0.11",
}


def test_variables_of_a_kubernetes_service_named_authsvc_are_ignored() -> None:
    assert from_environment(BY_KUBERNETES) == from_environment({})
    assert set_by_kubernetes({**BY_KUBERNETES, "AUTHSVC_BIND": "127.0.0.1:1", "PATH": "/"}) == list(BY_KUBERNETES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "8080"),
        ("PORT", "udp://10.0.0.11:53"),
        ("PORT_8080", "1"),
        ("PORT_8080_UDP", "1"),
        ("PORT_8080_TCP_HOST", "1"),
        ("PORT_HTTP_TCP", "1"),
        ("SERVICE", "1"),
        ("SERVICE_HOSTS", "1"),
        ("SERVICE_PORT_", "1"),
        ("SERVICE_PORT_api", "1"),
        ("API_SERVICE_HOST", "1"),
    ],
)
def test_similar_variables_are_still_unknown(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"AUTHSVC_{name} is not a setting of authsvc")


def test_every_setting_is_documented() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    assert set(names()) <= set(re.findall(r"\bAUTHSVC_[A-Z_]+\b", text))
    assert set(re.findall(r"`AUTHSVC_([A-Z_]+)` \\\*", text)) == set(SECRETS)


def test_every_field_of_the_record_has_a_variable() -> None:
    assert names() == [PREFIX + field.name.upper() for field in fields(Settings)]
    assert {PREFIX + secret for secret in SECRETS} <= set(names())
