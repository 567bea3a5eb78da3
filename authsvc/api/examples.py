"""Examples for every operation of the OpenAPI document, composed from one value for each field name.

A field has the same example wherever it occurs, because it has the same meaning. A new operation gets its examples by
itself; add the names of new fields to the table.
"""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]

TIME = "2026-11-20T08:00:00Z"
_LATER = "2027-11-20T08:00:00Z"
_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU...\n-----END CERTIFICATE-----\n"
_CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMIH6MIGhAgEAMBIxEDAO...\n-----END CERTIFICATE REQUEST-----\n"
_ID = "4f5b1c7e9d2a4e60b3c8a1f7d6e5c4b3"
_FINGERPRINT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_TOKEN = "eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJwcmVzcy03In0.c2lnbmF0dXJl"  # noqa: S105 - an example

_BY_FIELD: JsonObject = {
    "action": "user.change",
    "actor": "admin",
    "address": "192.0.2.7",
    "advice": "this lets it publish to this one topic",
    "attempts": 3,
    "broker": "plant",
    "browser": "Firefox on Linux",
    "bucketSeconds": 300,
    "caCertificate": _CERTIFICATE,
    "certificate": _CERTIFICATE,
    "clientId": "press-7",
    "clientIdPattern": "press-*",
    "clientIdPrefix": "press-",
    "clientIds": ["%u"],
    "clientIdsOf": {_ID: ["%u"]},
    "code": "registration-has-conflicts",
    "conflictAddresses": ["198.51.100.4"],
    "count": 1,
    "createdBy": "admin",
    "credential": "password",
    "csr": _CSR,
    "csrFingerprint": _FINGERPRINT,
    "damage": [],
    "days": 365,
    "decidedBy": "admin",
    "description": "Machines of hall 2",
    "detail": "others tried this name too",
    "durationSeconds": 300,
    "ended": ["press-7"],
    "enrolmentKey": "6Hq2-Zt9w-Xk4p-Lm7c",
    "expireTimeInHours": 12,
    "expiresAt": _LATER,
    "failed": [],
    "fingerprint": _FINGERPRINT,
    "heldReason": None,
    "id": _ID,
    "ids": [_ID],
    "label": "nightly backup",
    "message": "rules with %c let each client choose its topics; set allowed client ids",
    "name": "machine",
    "notAfter": _LATER,
    "origin": "administrator",
    "pairingCode": "7KMQ4X",
    "password": "a long secret",
    "perPage": 50,
    "protocol": "MQTT 5.0",
    "reason": "permission",
    "requestId": "0f8fad5bd9cb469fa16570867728950e",
    "requestedRoles": ["machine"],
    "resource": "devices/%u/#",
    "role": "machine",
    "roles": ["machine"],
    "search": "press",
    "secondsLeft": 300,
    "secret": "6Hq2-Zt9w-Xk4p-Lm7c",
    "serial": "3a5f0c9e7b21d846",
    "signature": "MEUCIQDx...",
    "similarTo": [],
    "startingRoles": ["machine"],
    "target": "user:press-7",
    "token": _TOKEN,
    "topic": "devices/press-7/up",
    "unlockedUntil": TIME,
    "username": "press-7",
    "usernamePattern": "press-*",
    "usernames": ["press-7", "press-8"],
    "uses": 10,
    "via": "api",
}

# Bodies whose fields exclude each other, or of which nobody sends all.
_WHOLE: dict[str, JsonObject] = {
    "DynsecBody": {"file": '{"clients": [{"username": "press-7", "roles": [{"rolename": "press"}]}], "roles": []}'},
    "FilesBody": {
        "passwords": "press-7:$7$101$KCcqFAWx...$IGalIX9d...\n",
        "acl": "user press-7\ntopic readwrite devices/press-7/#\n",
    },
    "GoAuthBody": {
        "passwords": "press-7:PBKDF2$sha512$100000$KCcqFAWx...$IGalIX9d...\n",
        "acl": "user press-7\ntopic readwrite devices/press-7/#\n",
    },
    "BulkBody": {"usernames": ["press-7", "press-8"], "action": "disable"},
    "DeleteManyBody": {"filter": {"usernamePattern": "press-*"}, "status": "denied"},
    "DenyBody": {"reason": "not one of ours"},
    "DenyManyBody": {"filter": {"usernamePattern": "mqttjs_*", "before": TIME}, "reason": "not one of ours"},
    "RoleChangeBody": {"description": "Machines of hall 2"},
    "UserPatchBody": {"enabled": False},
}
# Fields that mean something else, or usually have another value, in these schemas.
_PARTS: dict[str, JsonObject] = {
    "NoteView": {
        "kind": "leftOut",
        "place": "acl_file line 12",
        "message": "the access must be one of read, write, readwrite, deny",
        "question": None,
        "topicFilter": None,
        "users": [],
        "userCount": 0,
    },
    "CertificateView": {"reason": None, "revokedAt": None},
    "PermissionBody": {"operation": "readWrite"},
    "RegistrationView": {"reason": None, "decidedBy": None, "decidedAt": None, "context": {"hall": 2}},
    "RegisterBody": {"context": {"hall": 2}},
    "RoleBody": {"clientIds": []},
    "UserView": {"enabled": True, "groupRoles": [], "hasPassword": True, "warnings": []},
    "WarningView": {"code": "client-id-not-restricted"},
}
_TYPES: dict[str, Any] = {
    "string": str,
    "array": list,
    "object": dict,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
_TEXTS = {
    "text/csv": "username,roles,csrFingerprint\npress-7,machine,\n",
    "application/yaml": "users:\n- username: press-7\n  permissions:\n  - readWrite devices/%u/#\n",
}


def add_to(description: JsonObject) -> JsonObject:
    """Add an example to every body and every successful answer that has none, and return the same document."""
    schemas = description["components"]["schemas"]
    for operations in description["paths"].values():
        for operation in operations.values():
            answers = (answer for status, answer in operation["responses"].items() if status.startswith("2"))
            for message in (operation.get("requestBody", {}), *answers):
                for kind, content in message.get("content", {}).items():
                    if kind == "application/yaml":  # described by what it stands for, not as a text
                        content["schema"] = {"type": "object"}
                    made = _TEXTS.get(kind) or _example(content.get("schema", {}), schemas)
                    content.setdefault("example", made)
    return description


def _example(schema: JsonObject, schemas: JsonObject, field: str = "", parts: JsonObject = {}) -> Any:  # noqa: B006
    """Return an example of a schema; `field` is the name of the property that has it, `parts` replaces fields of it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _WHOLE.get(name) or _example(schemas[name], schemas, field, _PARTS.get(name, {}))
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if field in _BY_FIELD and _may_be(_BY_FIELD[field], schema):
        return _BY_FIELD[field]
    if choices:
        return _example(choices[0], schemas, field)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: parts.get(name, _example(each, schemas, name)) for name, each in properties.items()}
    return schema.get("const") or _of_type(schema, schemas, field)


def _may_be(value: Any, schema: JsonObject) -> bool:
    """Return whether the table's value for a field suits a field of this name and schema, such as one of an enum."""
    if "anyOf" in schema:
        return any(_may_be(value, choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    return isinstance(value, _TYPES.get(schema.get("type", ""), ()))


def _of_type(schema: JsonObject, schemas: JsonObject, field: str) -> Any:
    match schema.get("type"):
        case "array":
            return [_example(schema["items"], schemas)]
        case "integer" | "number":
            return int(schema.get("minimum", 1))
        case "boolean":
            return schema.get("default", False)
    return TIME if schema.get("format") == "date-time" else field or "press-7"
