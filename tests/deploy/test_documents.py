"""The commands in README.md and in the guides, followed line by line: they do what the text promises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.deploy.reader import ROOT, Block, Reader, blocks_of

if TYPE_CHECKING:
    from pathlib import Path

LISTENING = ("listening on http://127.0.0.1:8080", "listening on http://127.0.0.1:8070")
RUN = Block("make run", prints=("    password  ", "Sign in at http://127.0.0.1:8080/admin", *LISTENING), lasts=True)
REFUSED = 5  # exit status of mosquitto_pub

FIRST_STEPS = (
    RUN,
    Block("ADMIN=admin:", prints=('"username":"admin"',)),
    Block("curl", prints=('"username":"press-7"', '"devices/%u/#"')),
    Block("make broker"),
    Block("curl -s http://127.0.0.1:8070/auth/user", prints=('{"ok":true,"error":""}',) * 2),
    Block(
        "mosquitto_sub",
        prints=("devices/press-7/state running", "Connection Refused: not authorised."),
        prints_not=("devices/press-8/state running",),
        statuses=(0, 0, 0, 0, REFUSED),
    ),
    Block(
        'curl -s -u "$ADMIN" \'http://127.0.0.1:8080/api/users/press-7/decision',
        prints=('"allowed":false', "denied: no-permission"),
        statuses=(0, 1),
    ),
    Block('curl -s -u "$ADMIN" -X PATCH', prints=('"enabled":false',), broker_logs=("authsvc: disconnecting ",)),
)


@dataclass(frozen=True)
class Document:
    """A document's blocks that run, in its order, and what its reader did before."""

    blocks: tuple[Block, ...]
    before: tuple[tuple[str, Block], ...] = ()


STARTED = ("make run", RUN)

_USERS_WITH_CERTIFICATES = """\
printf s3cret-7 | authsvc users create press-7 --password-stdin --grant-type password --grant-type certificate
authsvc users create press-8 --no-password --grant-type certificate
authsvc certificates issue press-8 --out press
mv press/press-8.crt press/client.crt && mv press/press-8.key press/client.key
mkdir pki && curl -sf http://127.0.0.1:8080/pki/ca.pem -o pki/ca.pem
"""

_FILES_OF_MOSQUITTO = r"""
mosquitto_passwd -b -c passwd press-7 'secret of press-7'
printf 'user press-7\ntopic readwrite devices/press-7/#\n' > acl
"""
_FILE_OF_DYNAMIC_SECURITY = r"""
printf '{"clients": [{"username": "press-7", "roles": [{"rolename": "press"}]}], "roles": [{"rolename": "press",' > head
printf '"acls": [{"acltype": "publishClientSend", "topic": "devices/+/state", "allow": true}]}]}' > tail
cat head tail > dynamic-security.json
"""
_FILES_OF_GO_AUTH = r"""
mosquitto_passwd -b -c passwords press-7 'secret of press-7'
printf 'pattern readwrite devices/%%u/#\n' > acl
printf 'CREATE TABLE users (username, password_hash, is_admin); CREATE TABLE acls (username, topic, rw)' > tables.sql
python3 -c "import sqlite3; sqlite3.connect('go-auth.db').executescript(open('tables.sql').read())"
"""
_DENIALS = Block("authsvc denials", prints=("USERNAME",))
_IMPORTED = ("+ user press-7", "allowed")

DOCUMENTS = {
    "README.md": Document(
        (
            *FIRST_STEPS,
            Block('curl -s -u "$ADMIN" -X POST', prints=('"locked":false', '"secondsLeft":300')),
            Block(
                "mosquitto_pub -i press-9-plc",
                prints=("Connection Refused: not authorised.", "press-9-plc", "press-9 granted"),
                statuses=(REFUSED, 0, 0, 0),
            ),
            Block("curl -si", prints=("202 Accepted", "retry-after:", '"pairingCode":')),
            Block(".venv/bin/authsvc register", prints=("waiting for an administrator", "pairing code"), lasts=True),
            Block(
                ".venv/bin/authsvc registry grant press-11",
                prints=("press-11 granted", "press-11 can connect now"),
                files=("press-11/client.key", "press-11/client.crt", "press-11/ca.crt"),
            ),
            Block(".venv/bin/authsvc registry preauthorize press-12", prints=("press-12,", "ek_")),
            Block("curl -s http://127.0.0.1:8080/api/login", prints=('"token":',)),
            Block(
                ".venv/bin/authsvc users create press-8",
                prints=("press-8  enabled", "password of admin set", "user.create", "rows written"),
                files=("authsvc-backup.gz",),
            ),
        )
    ),
    "docs/certificates.md": Document(
        (
            Block("openssl req", files=("press-7.key", "press-7.p10", "press-7.crt")),
            Block("authsvc register --renew", prints=("not renewed",)),
            Block("authsvc certificates issue-server", files=("pki/server.key", "pki/server.crt", "pki/ca.crt")),
            Block(
                "authsvc crl sync", prints=("revocation list updated",), files=("pki/crl.pem", "reloaded"), lasts=True
            ),
            Block("authsvc users create authsvc-sessions", prints=("authsvc-sessions  enabled",)),
        ),
        before=(
            STARTED,
            (_USERS_WITH_CERTIFICATES, Block("printf")),
        ),
    ),
    "docs/command-line.md": Document(
        (
            Block(
                "authsvc registry preauthorize press-12",
                prints=("2 preauthorized", "press-13", "deleted", "press-7  enabled", "grant types  token", "revoked"),
            ),
            Block(
                "authsvc users list",
                prints=("USERNAME", "LISTENER", "AUTHSVC_BIND"),
                files=("disabled.csv", "changes.json"),
            ),
            Block("printf", prints=("press-20,", "press-21,")),
            Block("mkdir", files=(".local/share/bash-completion/completions/authsvc",)),
            Block("mkdir", files=(".zfunc/_authsvc",)),
            Block("mkdir", files=(".config/fish/completions/authsvc.fish",)),
        ),
        before=(STARTED,),
    ),
    "docs/from-mosquitto.md": Document(
        (
            Block("authsvc import mosquitto", prints=("+ user press-7", "dry run: nothing was written")),
            Block("authsvc import mosquitto", prints=_IMPORTED),
            _DENIALS,
        ),
        before=(STARTED, (_FILES_OF_MOSQUITTO, Block("mosquitto_passwd"))),
    ),
    "docs/from-dynamic-security.md": Document(
        (
            Block("authsvc import dynsec", prints=("+ user press-7", "dry run: nothing was written")),
            Block("authsvc import dynsec", prints=_IMPORTED),
            _DENIALS,
        ),
        before=(STARTED, (_FILE_OF_DYNAMIC_SECURITY, Block("printf"))),
    ),
    "docs/from-go-auth.md": Document(
        (
            Block("authsvc import go-auth", prints=("+ user press-7", "dry run: nothing was written")),
            Block("authsvc import go-auth", prints=("nothing",)),
            Block("authsvc import go-auth", prints=_IMPORTED),
            _DENIALS,
        ),
        before=(STARTED, (_FILES_OF_GO_AUTH, Block("mosquitto_passwd"))),
    ),
    "docs/operating.md": Document(()),
    "docs/policy-as-code.md": Document(
        (
            Block("authsvc export policy.yaml", prints=("written to policy.yaml", "unchanged")),
            Block(
                "printf",
                prints=("+ user press-30", "(dry run: nothing was written)", "2 created", "2 unchanged"),
                statuses=(0, 0, 3, 0, 0),
            ),
            Block(
                "authsvc export policy.yaml",
                prints=("- user press-31", "- user press-31", "1 removed, ", "1 removed, "),
                statuses=(0, 0, 3, 0),
            ),
            Block("authsvc export secret.yaml", prints=("unchanged",), files=("secret.yaml",)),
            Block("authsvc export before.yaml", prints=("unchanged",)),
        ),
        before=(STARTED,),
    ),
    "docs/settings.md": Document(
        (
            Block(
                "AUTHSVC_BIND=127.0.0.1:8081",
                prints=("Sign in at", "Brokers are answered at"),
                lasts=True,
                interrupted=True,
                files=("data2/authsvc.db",),
            ),
            Block("head -c 24", prints=("Brokers are answered at http://0.0.0.0:",), lasts=True, interrupted=True),
            Block("AUTHSVC_PASSWORD_POLICY=", prints=("Brokers are answered at",), lasts=True, interrupted=True),
            Block(
                ".venv/bin/authsvc serve --only api",
                prints=("Sign in at", "Brokers are answered at"),
                lasts=True,
                interrupted=True,
            ),
        )
    ),
    "docs/sign-in.md": Document(()),
    "deploy/mosquitto/README.md": Document(
        (
            Block("authsvc broker-config", prints=("auth_opt_backends http", "plugin /usr/lib/mosquitto_authsvc.so")),
            Block("authsvc crl sync", prints=("updated",), files=("pki/crl.pem", "pki/ca.pem")),
            Block("authsvc crl sync", prints=("revocation list updated",), files=("reloaded",), lasts=True),
        ),
        before=(STARTED, ("mkdir pki", Block("mkdir"))),
    ),
    "CONTRIBUTING.md": Document(()),
}


def test_every_guide_is_listed() -> None:
    guides = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    with_commands = {name for name in (str(path.relative_to(ROOT)) for path in guides) if blocks_of(name)}
    assert with_commands <= set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_run_or_says_why_not(name: str) -> None:
    found = [block.text for block in blocks_of(name) if not block.not_run]
    known = DOCUMENTS[name].blocks
    for text, block in zip(found, known, strict=False):
        assert text.startswith(block.begins), f"{name}: add this block to DOCUMENTS or mark it `<!-- not run: why -->`"
    assert len(found) == len(known), f"{name}: a block is missing in DOCUMENTS or in the document"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_are_in_blocks_marked_as_sh(name: str) -> None:
    text = re.sub(
        r"^ *```sh\n.*?^ *```$", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert not re.findall(
        r"^ {2,}(?:\S+=\S+ )*(?:\S*/)?(?:authsvc|curl|docker|mosquitto_\w+|make|sudo) .*", text, re.MULTILINE
    )


def _follow(name: str, blocks: tuple[Block, ...], directory: Path) -> None:
    document = DOCUMENTS[name]
    texts = [block.text for block in blocks_of(name) if not block.not_run]
    with Reader(directory) as reader:
        for text, block in document.before:
            reader.follow(text, block)
        for text, block in zip(texts, blocks, strict=False):
            reader.follow(text, block)


def test_first_steps_of_the_readme(tmp_path: Path) -> None:
    _follow("README.md", FIRST_STEPS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if document.blocks])
def test_whole_document(name: str, tmp_path: Path) -> None:
    _follow(name, DOCUMENTS[name].blocks, tmp_path)
