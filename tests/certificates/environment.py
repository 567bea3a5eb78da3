"""A service whose administrator calls the API, and bob, a device with a key of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography import x509

from authsvc.accounts import users
from authsvc.broker.goauth_protocol import WebhookRequest
from authsvc.broker.signals import unknown_username
from authsvc.pki.authorities import signing_policy
from authsvc.policy.snapshot import GrantType
from authsvc.storage.database import session
from authsvc.storage.models import DisconnectOrder
from authsvc.web.request_context import EXTENSION, Services
from registry.api import routes
from tests.actors import ADMIN_PASSWORD, BOBS_PASSWORD, HASHER, OPERATOR, mqtt
from tests.http.callers import Caller, basic
from tests.registry.signing import new_key, signing_request
from tests.shared_routes import app_for

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
    from flask_openapi3.openapi import OpenAPI
    from werkzeug.test import TestResponse

    from authsvc.accounts.users import UserChanges
    from authsvc.settings import Settings

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True, ids=[""])
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True, ids=[""])
BOTH_WAYS = frozenset({GrantType.CERTIFICATE, GrantType.PASSWORD})


@dataclass(frozen=True)
class Environment:
    """One worker of a service, without background threads."""

    app: OpenAPI

    @classmethod
    def opened(cls, settings: Settings) -> Environment:
        env = cls(app_for(settings))
        env.services.policy.catch_up()
        return env

    def close(self) -> None:
        """Disconnect from the signal for unknown usernames, which all apps of the process share."""
        unknown_username.disconnect(self.app.extensions[routes.EXTENSION].mqtt_registration.enqueue)

    @property
    def services(self) -> Services:
        return cast("Services", self.app.extensions[EXTENSION])

    @property
    def admin(self) -> Caller:
        return Caller(self.app.test_client(), basic("admin", ADMIN_PASSWORD))

    @property
    def unauthenticated(self) -> Caller:
        return Caller(self.app.test_client())

    def create_user(self, username: str, **fields: Any) -> None:
        """Create a user who logs in with a certificate or bob's password and may publish to its own topics."""
        wanted = {
            "password": BOBS_PASSWORD,
            "grant_types": BOTH_WAYS,
            "permissions": (mqtt("write", "devices/%u/#"),),
            **fields,
        }
        users.create(OPERATOR, username, cast("UserChanges", wanted), HASHER)

    def change_user(self, username: str = "bob", **fields: Any) -> None:
        users.change(OPERATOR, username, cast("UserChanges", fields), HASHER)

    def request_certificate(
        self, username: str = "bob", key: CertificateIssuerPrivateKeyTypes | None = None, **body: Any
    ) -> TestResponse:
        """Request a certificate as administrator for a user's key, by default a new one."""
        csr = signing_request(username, key or new_key())
        return self.admin.post(f"/api/users/{username}/certificates", {"csr": csr, **body})

    def issue_certificate(
        self, username: str = "bob", key: CertificateIssuerPrivateKeyTypes | None = None, **body: Any
    ) -> x509.Certificate:
        """Request a certificate, which must succeed, and return it."""
        answer = self.request_certificate(username, key, **body)
        assert answer.status_code == 201, answer.text
        return x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())

    def revoke_certificate(self, certificate: x509.Certificate, reason: str = "unspecified") -> TestResponse:
        return self.admin.post(f"/api/certificates/{serial_of(certificate)}/revoke", {"reason": reason})

    def show_certificate(self, certificate: x509.Certificate) -> dict[str, Any]:
        """Return a certificate as the API shows it."""
        answer = self.admin.get(f"/api/certificates/{serial_of(certificate)}")
        assert answer.status_code == 200, answer.text
        return cast("dict[str, Any]", answer.get_json())

    def acl_answer(self, username: str = "bob", query: bytes = b"grant=certificate") -> str:
        """Send an ACL request for a publish to the user's own topic; return `ok` or the reason of the denial."""
        self.services.policy.catch_up()
        fields = {"username": username, "clientid": "c1", "topic": f"devices/{username}/up", "acc": 2}
        request = WebhookRequest("acl", query, b"application/json", b"", json.dumps(fields).encode())
        answer = self.services.webhooks.answer(request)
        return cast("str", json.loads(answer.body)["error"] or "ok")

    def ca_pem(self) -> str:
        return self.unauthenticated.get("/pki/ca.pem").text

    def crl_pem(self) -> str:
        return self.unauthenticated.get("/pki/crl.pem").text

    def crl(self) -> x509.CertificateRevocationList:
        """Return the CRL of the signing authority."""
        return x509.load_der_x509_crl(self.unauthenticated.get("/pki/crl.der").data)

    def crl_entries(self) -> dict[str, str]:
        """Return the reasons on the CRL of the signing authority, by serial."""
        return entries_of(self.crl())

    def with_settings(self, **changes: Any) -> Environment:
        """Return the same service with other settings."""
        return Environment.opened(replace(self.services.settings, **changes))

    @property
    def signing_policy(self) -> Any:
        return signing_policy(self.services.settings)


def serial_of(certificate: x509.Certificate) -> str:
    """Return a serial in the format of the service."""
    return f"{certificate.serial_number:x}"


def number_of(revocations: x509.CertificateRevocationList) -> int:
    return revocations.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def entries_of(revocations: x509.CertificateRevocationList) -> dict[str, str]:
    """Return the reasons by serial; `unspecified` for an entry without a reason (RFC 5280)."""
    return {f"{entry.serial_number:x}": _reason(entry) for entry in revocations}


def _reason(entry: x509.RevokedCertificate) -> str:
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            return extension.value.reason.value
    return "unspecified"


def crls_in(pem: str) -> list[x509.CertificateRevocationList]:
    """Return the CRLs in a PEM file."""
    end = "-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl((part + end).encode()) for part in pem.split(end) if part]


def orders() -> list[tuple[str, str]]:
    """Return username and cause of the disconnect orders, oldest first."""
    with session():
        return [(row.username, row.cause) for row in DisconnectOrder.select().order_by(DisconnectOrder.id)]
