"""`authsvc broker-config`: the one home of the shipped configuration, and what it prints for others."""

from __future__ import annotations

import re

import pytest

from tests.deploy.shipped import (
    GUIDE,
    MOSQUITTO_CONF,
    PLUGIN_CONF,
    broker_config,
    commands_for_compose,
    lines,
    options,
    refusal,
)

SECRET = "the.right_secret~1"
PASSWORDS, CERTIFICATES = "listener 1883", "listener 8883"
PLUGIN = "/usr/lib/mosquitto_authsvc.so"
OWN_PLUGIN = ("--plugin", "--secret-file", "--ca-file", "--name")


def test_the_shipped_configurations_are_what_it_prints() -> None:
    go_auth, own = commands_for_compose()
    assert broker_config(*go_auth) == MOSQUITTO_CONF.read_text()
    assert broker_config(*own) == PLUGIN_CONF.read_text()


def test_the_guide_shows_the_same_options_and_the_same_lines_for_certificates() -> None:
    guide = GUIDE.read_text()
    arguments, _ = commands_for_compose()
    assert " ".join(arguments) in guide.partition("AUTHSVC_MUTUAL_TLS=yes authsvc broker-config")[2]
    (listener,) = re.findall(r"   (listener 8883\n.*?)   ```", guide, re.DOTALL)
    assert {line.strip() for line in listener.splitlines()} <= set(lines(broker_config()))


# ---- Who may log in, and how ----


def test_passwords_and_certificates_have_a_listener_each() -> None:
    printed = lines(broker_config())
    assert [line for line in printed if line.startswith("listener")] == [PASSWORDS, CERTIFICATES]
    after = printed[printed.index(CERTIFICATES) :]
    for option in ("require_certificate true", "use_identity_as_username true", "crlfile /etc/mosquitto/pki/crl.pem"):
        assert option in after
        assert printed.count(option) == 1
    assert "allow_anonymous false" in printed
    assert options(broker_config())["auth_opt_http_aclcheck_uri"] == "/auth/acl"


def test_mutual_tls_leaves_certificates_alone_and_asks_for_a_valid_one() -> None:
    printed = broker_config(MUTUAL_TLS="yes")
    assert [line for line in lines(printed) if line.startswith("listener")] == [CERTIFICATES]
    assert options(printed)["auth_opt_http_aclcheck_uri"] == "/auth/acl?grant=certificate"
    both, alone = options(broker_config()), options(printed)
    assert {name for name in both if both[name] != alone[name]} == {"auth_opt_http_aclcheck_uri"}


# ---- Where the service is, and the secret ----


@pytest.mark.parametrize(
    ("bind", "arguments", "host", "port"),
    [
        ("127.0.0.1:8070", [], "127.0.0.1", "8070"),
        ("0.0.0.0:8071", [], "127.0.0.1", "8071"),
        ("[::]:8071", [], "127.0.0.1", "8071"),
        ("[::1]:8070", [], "[::1]", "8070"),
        ("10.0.0.7:8070", [], "10.0.0.7", "8070"),
        ("0.0.0.0:8070", ["--host", "auth.example", "--port", "80"], "auth.example", "80"),
        ("0.0.0.0:8070", ["--host", "2001:db8::7"], "[2001:db8::7]", "8070"),
        ("0.0.0.0:8070", ["--host", "[2001:db8::7]"], "[2001:db8::7]", "8070"),
    ],
)
def test_the_service_is_where_the_settings_or_the_options_say(
    bind: str, arguments: list[str], host: str, port: str
) -> None:
    printed = options(broker_config(*arguments, BROKER_BIND=bind))
    assert (printed["auth_opt_http_host"], printed["auth_opt_http_port"]) == (host, port)


@pytest.mark.parametrize(
    ("secret", "spelled"),
    [(SECRET, SECRET), ("a b", "a%20b"), ("p@ss/word#1:", "p%40ss%2Fword%231%3A"), ("é", "%C3%A9")],
)
def test_the_webhook_secret_stands_in_the_host_as_a_url_wants_it(secret: str, spelled: str) -> None:
    printed = broker_config("--host", "authsvc", WEBHOOK_SECRET=secret)
    assert options(printed)["auth_opt_http_host"] == f"broker:{spelled}@authsvc"


def test_a_placeholder_keeps_the_secret_out_of_what_is_printed() -> None:
    printed = broker_config("--placeholder", WEBHOOK_SECRET=SECRET)
    assert options(printed)["auth_opt_http_host"] == "broker:{{webhook_secret}}@127.0.0.1"
    assert SECRET not in printed


@pytest.mark.parametrize("option", ["--go-auth", "--plugin", "--pki", "--server-pki", "--pid"])
def test_files_are_where_the_options_say(option: str) -> None:
    assert "/somewhere else" not in broker_config()
    assert "/somewhere else" in broker_config(option, "/somewhere else")


# ---- The two plugins ----


def own_plugin_options(*arguments: str, **settings: str) -> dict[str, str]:
    """Return the lines for authsvc's own plugin by name."""
    printed = options(broker_config("--plugin", PLUGIN, *arguments, **settings))
    assert not [name for name in printed if name.startswith("auth_")]
    return {name: value for name, value in printed.items() if name.startswith("plugin")}


def test_own_plugin_needs_three_lines_without_a_webhook_secret() -> None:
    assert own_plugin_options() == {
        "plugin": PLUGIN,
        "plugin_opt_url": "http://127.0.0.1:8070",
        "plugin_opt_offline_seconds": "300",
    }


def test_own_plugin_reads_the_webhook_secret_from_a_file() -> None:
    for arguments, file in (((), "/run/secrets/webhook_secret"), (("--secret-file", "/a b"), "/a b")):
        assert own_plugin_options(*arguments, WEBHOOK_SECRET=SECRET)["plugin_opt_secret_file"] == file
        assert SECRET not in broker_config("--plugin", PLUGIN, *arguments, WEBHOOK_SECRET=SECRET)
    assert "{{" not in broker_config("--plugin", PLUGIN, "--placeholder")


def test_own_plugin_reaches_the_service_over_tls_and_has_a_name_if_asked_for() -> None:
    printed = own_plugin_options("--host", "2001:db8::7", "--port", "443", "--ca-file", "/ca.pem", "--name", "plant 7")
    assert printed["plugin_opt_url"] == "https://[2001:db8::7]:443"
    assert printed["plugin_opt_ca_file"] == "/ca.pem"
    assert printed["plugin_opt_name"] == "plant 7"


@pytest.mark.parametrize("mutual_tls", ["yes", "no"])
def test_both_plugins_have_the_same_listeners_and_the_same_lines_for_certificates(mutual_tls: str) -> None:
    own, go_auth = (
        [line for line in lines(broker_config(*arguments, MUTUAL_TLS=mutual_tls)) if not re.match("auth_|plugin", line)]
        for arguments in (("--plugin", PLUGIN), ())
    )
    assert own == go_auth
    assert ("crlfile /etc/mosquitto/pki/crl.pem" in own, "grant=certificate" in "".join(own)) == (True, False)


def test_options_of_one_plugin_are_refused_with_the_other() -> None:
    assert "exclude each other" in refusal("--plugin", PLUGIN, "--go-auth", "/mosquitto/go-auth.so")
    for option in ("--secret-file", "--ca-file", "--name"):
        assert f"{option} needs --plugin" in refusal(option, "x")
    assert "at most 64 characters" in refusal("--plugin", PLUGIN, "--name", "x" * 65)


# ---- What does not fit ----


@pytest.mark.parametrize("option", [*OWN_PLUGIN, "--host", "--go-auth", "--pki", "--server-pki", "--pid"])
@pytest.mark.parametrize("value", ["", " ", "x\nallow_anonymous true", "x\rallow_anonymous true", "x\0"])
def test_nothing_brings_a_line_of_its_own(option: str, value: str) -> None:
    assert f"Invalid value for '{option}'" in refusal(option, value)


@pytest.mark.parametrize("host", ["a b", "user@host", "host/path", "host?query", "host#fragment"])
def test_a_host_is_a_host(host: str) -> None:
    assert "must be a host name or an address" in refusal("--host", host)


@pytest.mark.parametrize("option", ["--port", "--password-port", "--tls-port"])
@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_port_is_a_port(option: str, port: str) -> None:
    assert f"Invalid value for '{option}'" in refusal(option, port)
