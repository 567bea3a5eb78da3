"""Server certificates for brokers, signed by the same authority as client certificates.

They are stored with the client certificates, under a username that no user can have: `server:` and the first host. So
they are listed, revoked and watched for expiry in the same way. The Common Name is this username too: if a broker took
a server certificate for a client's, against its extended key usage, there would be no such user.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509

from authsvc.activity import audit
from authsvc.errors import Conflict, invalid
from authsvc.pki import authorities, certificates
from authsvc.pki.csr import fingerprint_of
from authsvc.storage.database import transaction
from authsvc.storage.models import Certificate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authsvc.pki.authorities import SigningPolicy
    from authsvc.pki.csr import ClientKey
    from authsvc.policy.actors import Actor

MAX_HOSTS = 50
MAX_HOST_CHARACTERS = 253
_MAX_NAME = 64  # the column, and the Common Name (RFC 5280)
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")


def issue(actor: Actor, hosts: Sequence[str], key: ClientKey, policy: SigningPolicy) -> certificates.IssuedCertificate:
    """Sign a server certificate for these host names and IP addresses; `InvalidInput` for `hosts` if one is not valid.

    A server may keep its key: the same key gets a new certificate each time. `Conflict` for the key of a client.
    """
    names = _read_hosts(hosts)
    username = f"{certificates.SERVER}{names[0].value}"[:_MAX_NAME]
    with transaction():
        now, fingerprint = datetime.now(UTC), fingerprint_of(key)
        of_client = ~Certificate.username.startswith(certificates.SERVER)
        if Certificate.select().where(Certificate.fingerprint == fingerprint, of_client).exists():
            raise Conflict("this is the key of a client certificate; create a new key for the server", "key-used")
        row, authority = authorities.signing_authority(policy.passphrase)
        signed = authority.sign_server(username, names, key, now, policy.days)
        stored: Certificate = Certificate.create(**asdict(signed), authority=row, username=username, created_at=now)
        after = {"hosts": [str(name.value) for name in names], "notAfter": signed.not_after.isoformat()}
        audit.record(actor, "certificate.issue-server", f"certificate:{signed.serial}", after=after)
        return certificates.issued(stored)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the host names and addresses of a server certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]


def _read_hosts(hosts: Sequence[str]) -> list[x509.DNSName | x509.IPAddress]:
    if not 0 < len(hosts) <= MAX_HOSTS:
        raise invalid("hosts", f"must be 1 to {MAX_HOSTS} host names or IP addresses")
    return [_read_host(host.strip()) for host in dict.fromkeys(hosts)]


def _read_host(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ip_address(host.strip("[]")))
    except ValueError:
        pass
    name = host.lower().removesuffix(".")
    # A name of digits and dots is a mistyped address.
    if (
        len(name) > MAX_HOST_CHARACTERS
        or not _HOST_NAME.fullmatch(name)
        or not name.rpartition(".")[2].strip("0123456789")
    ):
        raise invalid(
            "hosts", "must be host names or IP addresses, such as broker.plant or 192.0.2.7, without scheme and port"
        )
    return x509.DNSName(name)
