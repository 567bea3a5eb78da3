"""OpenLDAP's server with a small company in it, run as a process of the tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ldap3 import MODIFY_REPLACE, Connection, Server

from tests.broker import free_port
from tests.http.wire import within

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM = shutil.which("slapd", path="/usr/sbin:/usr/lib/openldap:/usr/bin")
BASE = "dc=plant,dc=example"
SERVICE_DN, SERVICE_PASSWORD = f"cn=authsvc,{BASE}", "the service's own password"
ADMINS = f"cn=plant-admins,ou=groups,{BASE}"
_PATIENCE = 30.0
_CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
allow bind_anon_cred
sizelimit 500
database mdb
maxsize 10485760
suffix "{base}"
rootdn "cn=root,{base}"
rootpw root
directory {directory}/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{service}" read by * none
"""
_GROUP = "dn: cn={name},ou=groups,{base}\nobjectClass: groupOfNames\ncn: {name}\n{members}\n\n"


class Slapd:
    """The server. `tls` are the certificate and key of its TLS port; `people` are passwords by username."""

    def __init__(self, directory: Path, tls: tuple[Path, Path], people: Mapping[str, str]) -> None:
        self._directory = directory
        self._port, self._tls_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.log = directory / "slapd.log"
        self.plain, self.tls = f"ldap://127.0.0.1:{self._port}", f"ldaps://localhost:{self._tls_port}"
        self.start_tls = f"ldap+starttls://localhost:{self._port}"
        (directory / "db").mkdir()
        certificate, key = tls
        text = _CONFIGURATION.format(
            directory=directory, certificate=certificate, key=key, base=BASE, service=SERVICE_DN
        )
        (directory / "slapd.conf").write_text(text)
        self._load(people)

    def _load(self, people: Mapping[str, str]) -> None:
        entries = [
            f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: Plant\ndc: plant\n\n",
            f"dn: {SERVICE_DN}\nobjectClass: person\ncn: authsvc\nsn: -\nuserPassword: {SERVICE_PASSWORD}\n\n",
            *(
                f"dn: ou={name},{BASE}\nobjectClass: organizationalUnit\nou: {name}\n\n"
                for name in ("people", "groups")
            ),
        ]
        entries += [
            f"dn: {dn(name)}\nobjectClass: inetOrgPerson\ncn: {name}\nsn: -\nuid: {name}\nuserPassword: {password}\n\n"
            for name, password in people.items()
        ]
        done = subprocess.run(
            [str(Path(str(PROGRAM)).with_name("slapadd")), "-f", str(self._directory / "slapd.conf")],
            input="".join(entries),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def has_groups(self, groups: Mapping[str, list[str]]) -> None:
        """Replace the members of these groups, given as DNs, and create groups that do not exist."""
        with self._as_root() as root:
            for name, members in groups.items():
                group = f"cn={name},ou=groups,{BASE}"
                if not root.add(group, ["groupOfNames"], {"cn": name, "member": members}):
                    assert root.modify(group, {"member": [(MODIFY_REPLACE, members)]}), root.result

    def has_posix_group(self, name: str, usernames: list[str]) -> None:
        """Create a group whose members are names."""
        with self._as_root() as root:
            group = {"cn": name, "gidNumber": 100, "memberUid": usernames}
            assert root.add(f"cn={name},ou=groups,{BASE}", ["posixGroup"], group), root.result

    def has_group_of(self, dn: str, members: list[str]) -> None:
        """Create a group at any DN."""
        with self._as_root() as root:
            assert root.add(dn, ["groupOfNames"], {"ou": "all", "member": members}), root.result

    def delete(self, name: str) -> None:
        """Delete a person."""
        with self._as_root() as root:
            assert root.delete(dn(name)), root.result

    def add(self, name: str, password: str) -> None:
        """Add a person."""
        attributes = {"cn": name, "sn": "-", "uid": name, "userPassword": password}
        with self._as_root() as root:
            assert root.add(dn(name), ["inetOrgPerson"], attributes), root.result

    def _as_root(self) -> Connection:
        server = Server("127.0.0.1", self._port, get_info="NO_INFO", connect_timeout=10)
        return Connection(server, f"cn=root,{BASE}", "root", receive_timeout=10, check_names=False)

    def environment(self, *urls: str, **settings: str) -> dict[str, str]:
        """Return the settings of authsvc for these of its addresses."""
        chosen = {
            "url": ",".join(urls),
            "bind_dn": SERVICE_DN,
            "bind_password": SERVICE_PASSWORD,
            "user_base": BASE,
            "roles": json.dumps({ADMINS: ["admin"]}),
            **settings,
        }
        return {f"AUTHSVC_LDAP_{name.upper()}": value for name, value in chosen.items()}

    def start(self) -> None:
        urls = f"{self.plain} ldaps://127.0.0.1:{self._tls_port}"
        command = [str(PROGRAM), "-d", "stats", "-f", str(self._directory / "slapd.conf"), "-h", urls]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        assert within(_PATIENCE, self._answers), self.log.read_text()

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5):
            return True
        return False

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(_PATIENCE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def dn(name: str) -> str:
    """Return the DN of a person."""
    return f"uid={name},ou=people,{BASE}"
