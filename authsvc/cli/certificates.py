"""`authsvc certificates` and `authsvc ca`: client certificates and their authority."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from authsvc.accounts import users
from authsvc.cli import terminal
from authsvc.credentials.usernames import validate_username
from authsvc.errors import Conflict
from authsvc.pki import authorities, ca, certificates
from authsvc.pki import csr as csrs
from authsvc.pki.authorities import signing_policy
from authsvc.pki.ca import RevocationReason
from authsvc.record_json import json_fields


@click.group("certificates")
def group() -> None:
    """Issue, list and revoke client certificates."""


@group.command("list")
@click.option("--user", "username", default="", help="Only this user's.")
@click.option("--search", default="", help="Part of the username or serial.")
@click.option("--status", type=click.Choice(["valid", "revoked", "expired"]))
@click.option(
    "--expiring", "days", type=click.IntRange(0), metavar="DAYS", help="Only valid ones that expire within DAYS days."
)
@terminal.paged
@terminal.as_json
def list_certificates(
    username: str, search: str, status: str | None, days: int | None, page: int, per_page: int, *, as_json: bool
) -> None:
    """List certificates, the next to expire first."""
    with terminal.opened():
        found = certificates.search(
            certificates.CertificateFilter(username, search, status or "", days), page, per_page
        )
    if as_json:
        terminal.print_page(found, _shown)
        return
    rows = ([value or "" for value in _shown(record).values()][:6] for record in found.items)
    terminal.print_table(("SERIAL", "USERNAME", "STATUS", "NOT AFTER", "REVOKED", "REASON"), rows)


@group.command()
@click.argument("serial")
def show(serial: str) -> None:
    """Show one certificate, as JSON."""
    with terminal.opened():
        record = certificates.get(serial)
    terminal.print_json({**_shown(record), "certificate": record.certificate})


@group.command()
@click.argument("username")
@click.option("--csr", type=terminal.FILE, help="A CSR; without it the command generates a key.")
@click.option("--days", type=click.IntRange(1, certificates.MAX_DAYS))
@click.option(
    "--out", "directory", default=".", type=click.Path(file_okay=False, path_type=Path), help="Directory for the files."
)
@click.option("--p12", is_flag=True, help="Also write USERNAME.p12; the command prompts for its password.")
def issue(username: str, csr: Path | None, days: int | None, directory: Path, *, p12: bool) -> None:
    """Issue a certificate: write USERNAME.crt, ca.crt and, without --csr, USERNAME.key, readable by you alone."""
    validate_username(username)
    if csr and p12:
        raise click.UsageError("--p12 needs the private key, which a CSR does not contain; leave out --csr or --p12")
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    public_key = csrs.read(csr.read_text(), username).public_key if csr else key.public_key()
    password = click.prompt("Password of the .p12 file", hide_input=True, confirmation_prompt=True) if p12 else None
    secrets = {} if csr else {f"{username}.key": ca.encrypt_key(key, None).encode()}
    for path in [directory / name for name in (*secrets, *([f"{username}.p12"] if p12 else []))]:
        if path.exists():
            raise _file_exists(path)
    with terminal.opened() as settings:
        issued = users.issue_certificate(terminal.operator(), username, public_key, signing_policy(settings, days))
    if password:
        secrets[f"{username}.p12"] = _pkcs12(key, issued, password)
    for name, content in secrets.items():
        _write_secret(directory / name, content)
    (directory / f"{username}.crt").write_text(issued.record.certificate)
    (directory / "ca.crt").write_text(issued.ca_certificate)
    click.echo(f"{issued.record.serial} for {username}, valid until {terminal.spell_moment(issued.record.not_after)}")


@group.command()
@click.argument("serial")
@click.option(
    "--reason",
    default=RevocationReason.UNSPECIFIED.value,
    type=click.Choice([reason.value for reason in RevocationReason]),
    show_default=True,
)
def revoke(serial: str, reason: str) -> None:
    """Revoke a certificate; the next revocation list has it."""
    with terminal.opened():
        certificates.revoke(terminal.operator(), serial, RevocationReason(reason))
    click.echo(f"{serial} revoked")


@click.group("ca")
def ca_group() -> None:
    """Show, replace or import the certificate authority."""


@ca_group.command("show")
@terminal.as_json
def show_authorities(*, as_json: bool) -> None:
    """List the trusted authorities; the first one signs."""
    with terminal.opened():
        found = authorities.records()
    names = ("subject", "notAfter", "retiresAt", "crlNumber", "crlNextUpdate")
    shown = [{name: "" if each[name] is None else each[name] for name in names} for each in map(json_fields, found)]
    if as_json:
        terminal.print_json(shown)
    else:
        columns = ("SUBJECT", "NOT AFTER", "RETIRES", "CRL", "NEXT CRL")
        terminal.print_table(columns, (list(map(str, each.values())) for each in shown))


@ca_group.command()
@click.option(
    "--overlap-days",
    default=365,
    type=click.IntRange(0, 3650),
    show_default=True,
    help="Days for which the old authority stays trusted.",
)
def rotate(overlap_days: int) -> None:
    """Create a new authority that signs from now on; the old one stays trusted during the overlap."""
    with terminal.opened() as settings:
        authorities.rotate(terminal.operator(), settings.ca_key_passphrase, timedelta(days=overlap_days))
    click.echo("new authority created; fetch /pki/ca.pem again for each broker's cafile")


@ca_group.command("import")
@click.option("--certificate", required=True, type=terminal.FILE)
@click.option("--key", required=True, type=terminal.FILE)
@click.option("--chain", type=terminal.FILE, help="PEM certificates from the issuer up to the root.")
@click.option("--key-passphrase-file", type=terminal.FILE)
@click.option("--overlap-days", default=365, type=click.IntRange(0, 3650), show_default=True)
def import_authority(
    certificate: Path, key: Path, chain: Path | None, key_passphrase_file: Path | None, overlap_days: int
) -> None:
    """Sign from now on with your own authority: a root, or an intermediate with its chain."""
    given = key_passphrase_file.read_text().rstrip("\r\n") if key_passphrase_file else None
    with terminal.opened() as settings:
        authorities.import_authority(
            terminal.operator(),
            certificate.read_text(),
            chain.read_text() if chain else "",
            key.read_text(),
            given,
            settings.ca_key_passphrase,
            timedelta(days=overlap_days),
        )
    click.echo("imported; fetch /pki/ca.pem again for each broker's cafile")


COMMANDS = (group, ca_group)


def _shown(record: certificates.CertificateRecord) -> dict[str, Any]:
    found = json_fields(record) | {"status": record.status_at(datetime.now(UTC))}
    names = ("serial", "username", "status", "notAfter", "revokedAt", "reason", "notBefore", "fingerprint")
    return {name: found[name] for name in names}


def _pkcs12(key: ec.EllipticCurvePrivateKey, issued: certificates.IssuedCertificate, password: str) -> bytes:
    certificate = ca.read_certificate(issued.record.certificate)
    authority = ca.read_certificate(issued.ca_certificate)
    encryption = serialization.BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(
        issued.record.username.encode(), key, certificate, [authority], encryption
    )


def _file_exists(path: Path) -> Conflict:
    return Conflict(f"{path} exists and is not overwritten, because it may hold a key; move it away", "file-exists")


def _write_secret(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise _file_exists(path) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
