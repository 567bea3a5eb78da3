"""`authsvc certificates` and `authsvc ca`: what logs clients in, and what signs it."""

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
from authsvc.cli.terminal import as_json, opened, operator, print_json, print_table, spell_moment
from authsvc.credentials.usernames import validate_username
from authsvc.errors import Conflict
from authsvc.pki import authorities, ca, certificates
from authsvc.pki import csr as signing_requests
from authsvc.pki.authorities import signing_policy
from authsvc.pki.ca import RevocationReason


@click.group("certificates")
def group() -> None:
    """Issue, list and revoke client certificates."""


@group.command("list")
@click.option("--user", "username", default="", help="Only this user's.")
@click.option("--search", default="", help="Part of the username or serial.")
@click.option("--status", type=click.Choice(["valid", "revoked", "expired"]))
@click.option(
    "--expiring", "days", type=click.IntRange(0), metavar="DAYS", help="Valid ones that expire within so long."
)
@click.option("--page", default=1, type=click.IntRange(1))
@click.option("--per-page", default=50, type=click.IntRange(1, 1000))
@as_json
def list_certificates(
    username: str, search: str, status: str | None, days: int | None, page: int, per_page: int, *, as_json: bool
) -> None:
    """List certificates, the next to expire first."""
    with opened():
        found = certificates.search(
            certificates.CertificateFilter(username, search, status or "", days), page, per_page
        )
    if as_json:
        print_json({"items": list(map(_facts, found.items)), "page": page, "perPage": per_page, "total": found.total})
        return
    rows = ([str(value or "") for value in _facts(record).values()][:6] for record in found.items)
    print_table(("SERIAL", "USERNAME", "STATUS", "NOT AFTER", "REVOKED", "REASON"), rows)


@group.command()
@click.argument("serial")
def show(serial: str) -> None:
    """Print one certificate, and what is known of it."""
    with opened():
        record = certificates.get(serial)
    print_json({**_facts(record), "certificate": record.certificate})


@group.command()
@click.argument("username")
@click.option(
    "--csr", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A request; without one, a key is made."
)
@click.option("--days", type=click.IntRange(1, certificates.MAX_DAYS))
@click.option(
    "--out", "directory", default=".", type=click.Path(file_okay=False, path_type=Path), help="Where the files go."
)
@click.option("--p12", is_flag=True, help="Also write USERNAME.p12; its password is asked for.")
def issue(username: str, csr: Path | None, days: int | None, directory: Path, *, p12: bool) -> None:
    """Issue a certificate for USERNAME: USERNAME.crt, ca.crt and, without --csr, USERNAME.key for your eyes alone."""
    validate_username(username)
    if csr and p12:
        raise click.UsageError("--p12 needs the key, which --csr leaves elsewhere")
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    public_key = signing_requests.read(csr.read_text(), username).public_key if csr else key.public_key()
    password = click.prompt("Password of the .p12 file", hide_input=True, confirmation_prompt=True) if p12 else None
    secrets = {} if csr else {f"{username}.key": _key_pem(key)}
    _refuse_to_overwrite(directory, [*secrets, *([f"{username}.p12"] if p12 else [])])
    with opened() as settings:
        issuing = signing_policy(settings)
        issuing = issuing._replace(days=days or issuing.days)
        issued = users.issue_certificate(operator(), username, public_key, issuing)
    if password:
        secrets[f"{username}.p12"] = _pkcs12(key, issued, password)
    for name, content in secrets.items():
        _write_secret(directory / name, content)
    (directory / f"{username}.crt").write_text(issued.record.certificate)
    (directory / "ca.crt").write_text(issued.ca_certificate)
    click.echo(f"{issued.record.serial} for {username}, good until {spell_moment(issued.record.not_after)}")


@group.command()
@click.argument("serial")
@click.option(
    "--reason",
    default=RevocationReason.UNSPECIFIED.value,
    type=click.Choice([reason.value for reason in RevocationReason]),
    show_default=True,
)
def revoke(serial: str, reason: str) -> None:
    """Revoke a certificate; it is on the next revocation list."""
    with opened():
        certificates.revoke(operator(), serial, RevocationReason(reason))
    click.echo(f"{serial} revoked")


@click.group("ca")
def ca_group() -> None:
    """Show, replace or bring along the certificate authority."""


@ca_group.command("show")
@as_json
def show_authorities(*, as_json: bool) -> None:
    """List the authorities that are trusted; the first one signs."""
    with opened():
        found = authorities.records()
    facts = [
        {
            "subject": record.subject,
            "notAfter": spell_moment(record.not_after),
            "retires": spell_moment(record.retires_at),
            "crlNumber": record.crl_number,
            "crlNextUpdate": spell_moment(record.crl_next_update),
        }
        for record in found
    ]
    if as_json:
        print_json(facts)
    else:
        print_table(
            ("SUBJECT", "NOT AFTER", "RETIRES", "CRL", "NEXT CRL"), ([str(v) for v in each.values()] for each in facts)
        )


@ca_group.command()
@click.option(
    "--overlap-days",
    default=365,
    type=click.IntRange(0, 3650),
    show_default=True,
    help="How long the old one stays trusted.",
)
def rotate(overlap_days: int) -> None:
    """Make a new authority, which signs from now on; the old one stays trusted for a while."""
    with opened() as settings:
        authorities.rotate(operator(), settings.ca_key_passphrase, timedelta(days=overlap_days))
    click.echo("new authority made; fetch /pki/ca.pem again for each broker's cafile")


@ca_group.command("import")
@click.option("--certificate", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--chain",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="From the issuer up to the root, as PEM.",
)
@click.option("--key-passphrase-file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--overlap-days", default=365, type=click.IntRange(0, 3650), show_default=True)
def import_authority(
    certificate: Path, key: Path, chain: Path | None, key_passphrase_file: Path | None, overlap_days: int
) -> None:
    """Let an authority of your own sign from now on, a root or an intermediate with its chain."""
    given = key_passphrase_file.read_text().rstrip("\r\n") if key_passphrase_file else None
    with opened() as settings:
        authorities.import_authority(
            operator(),
            certificate.read_text(),
            chain.read_text() if chain else "",
            key.read_text(),
            given,
            settings.ca_key_passphrase,
            timedelta(days=overlap_days),
        )
    click.echo("imported; fetch /pki/ca.pem again for each broker's cafile")


COMMANDS = (group, ca_group)


def _facts(record: certificates.CertificateRecord) -> dict[str, Any]:
    return {
        "serial": record.serial,
        "username": record.username,
        "status": record.status_at(datetime.now(UTC)),
        "notAfter": spell_moment(record.not_after),
        "revoked": spell_moment(record.revoked_at) or None,
        "reason": record.reason,
        "notBefore": spell_moment(record.not_before),
        "fingerprint": record.fingerprint,
    }


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form, encryption = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


def _pkcs12(key: ec.EllipticCurvePrivateKey, issued: certificates.IssuedCertificate, password: str) -> bytes:
    certificate = ca.read_certificate(issued.record.certificate)
    authority = ca.read_certificate(issued.ca_certificate)
    encryption = serialization.BestAvailableEncryption(password.encode())
    return pkcs12.serialize_key_and_certificates(
        issued.record.username.encode(), key, certificate, [authority], encryption
    )


def _refuse_to_overwrite(directory: Path, names: list[str]) -> None:
    for name in names:
        if (directory / name).exists():
            raise Conflict(f"{directory / name} exists; a key is never overwritten", "file-exists")


def _write_secret(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists; a key is never overwritten", "file-exists") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
