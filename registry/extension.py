"""How the registry joins the app: its views, its ear for strangers, and its work in the background."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from authsvc.admin.pages import add_pages, add_tile
from authsvc.broker.signals import unknown_username
from authsvc.pki.authorities import signing_policy
from authsvc.storage.background import Job
from registry import admin, decisions, metrics, preauthorization_match
from registry.api import est, routes
from registry.limits import Limits, RequestLimits
from registry.mqtt_registration.attempted_names import AttemptedNames
from registry.mqtt_registration.contacts import Contacts
from registry.mqtt_registration.registration import Capacity, MqttRegistration
from registry.mqtt_registration.unknown_names import UnknownNames
from registry.rest_registration import RestRegistration

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services


def register(app: OpenAPI, services: Services) -> list[Job]:
    """Add the registry to the app and return the work it needs done in the background."""
    settings = services.settings
    issuing = signing_policy(settings)
    contacts, unknown_names, attempted = Contacts(), UnknownNames(), AttemptedNames()
    capacity = Capacity(
        settings.registry_max_pending,
        settings.registry_max_locked if settings.registry_capture_while_locked else 0,
    )
    intake = MqttRegistration(services.hasher, services.verifier, issuing, capacity, contacts, unknown_names, attempted)
    limits = Limits(
        per_name_and_address=settings.registry_attempts_per_minute,
        per_address=settings.registry_address_attempts_per_minute,
        names=settings.registry_names_per_minute,
    )
    explicit = RestRegistration(
        services.hasher,
        services.verifier,
        issuing,
        settings.registry_max_pending,
        RequestLimits(limits),
        contacts,
        unknown_names,
        attempted,
        BoundedSemaphore(max(1, settings.threads // 4)),
    )
    app.extensions[routes.EXTENSION] = routes.Registry(explicit, intake, issuing, settings.registry_max_request_bytes)
    for blueprint in routes.BLUEPRINTS:
        app.register_api(blueprint)
    app.register_blueprint(est.blueprint)
    add_pages(app, admin.blueprint, admin.NAVIGATION)
    add_tile(app, admin.NAVIGATION.call, admin.pending_tile)
    # A strong reference: the signal would let go of the bound method of an intake that nobody else holds.
    unknown_username.connect(intake.enqueue, weak=False)
    return [
        Job(0.1, intake.flush),
        Job(1.0, contacts.write, run_at_stop=True),
        Job(1.0, lambda: metrics.observe(intake, unknown_names)),
        Job(5.0, unknown_names.report),
        Job(0.5, lambda: preauthorization_match.hold_attempted(attempted)),
        Job(60.0, lambda: decisions.expire(settings.registry_pending_ttl_hours)),
    ]
