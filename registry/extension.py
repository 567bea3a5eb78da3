"""Adds the registry to the app: its REST API, its pages, its signal receiver and its background jobs."""

from __future__ import annotations

from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from authsvc.admin.pages import add_pages, add_tile
from authsvc.broker.signals import unknown_username
from authsvc.pki.authorities import signing_policy
from authsvc.storage.background import Job
from authsvc.web import stored_metrics
from registry import admin, decisions, metrics, preauthorizations
from registry.api import est, policy_file, routes
from registry.limits import Limits, RequestLimits
from registry.mqtt_registration import refused_names
from registry.mqtt_registration.attempted_names import AttemptedNames
from registry.mqtt_registration.contacts import ContactWriter
from registry.mqtt_registration.registration import Capacity, MqttRegistration
from registry.mqtt_registration.unknown_names import UnknownNames
from registry.rest_registration import RestRegistration

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services


def register(app: OpenAPI) -> None:
    """Add the routes of the registry to the app."""
    for blueprint in (*routes.BLUEPRINTS, policy_file.blueprint):
        app.register_api(blueprint)
    app.register_blueprint(est.blueprint)
    add_pages(app, admin.blueprint, admin.NAVIGATION)
    stored_metrics.add(app, metrics.stored)
    add_tile(app, admin.NAVIGATION.call, admin.pending_tile)


def assemble(app: OpenAPI, services: Services) -> list[Job]:
    """Put the parts of one registry behind its routes and return its background jobs."""
    settings = services.settings
    signing = signing_policy(settings)
    contacts, unknown_names, attempted = ContactWriter(), UnknownNames(), AttemptedNames()
    capacity = Capacity(
        settings.registry_max_pending,
        settings.registry_max_locked if settings.registry_capture_while_locked else 0,
    )
    names = settings.registration_usernames
    mqtt = MqttRegistration(
        services.hasher, services.verifier, signing, capacity, contacts, unknown_names, attempted, names=names
    )
    limits = Limits(
        per_name_and_address=settings.registry_attempts_per_minute,
        per_address=settings.registry_address_attempts_per_minute,
        names=settings.registry_names_per_minute,
    )
    rest = RestRegistration(
        services.hasher,
        services.verifier,
        signing,
        settings.registry_max_pending,
        RequestLimits(limits),
        contacts,
        unknown_names,
        attempted,
        BoundedSemaphore(max(1, settings.threads // 4)),
        names,
    )
    app.extensions[routes.EXTENSION] = routes.Registry(rest, mqtt, signing, settings.registry_max_request_bytes)
    # The signal keeps a weak reference by default, and nothing else refers to this bound method.
    unknown_username.connect(mqtt.enqueue, weak=False)
    return [
        Job(0.1, mqtt.flush),
        Job(1.0, contacts.flush, run_at_stop=True),
        Job(1.0, lambda: metrics.update(mqtt, unknown_names)),
        Job(5.0, unknown_names.report),
        Job(2.0, mqtt.refused_names.store, run_at_stop=True),
        Job(600.0, refused_names.delete_expired),
        Job(0.5, lambda: preauthorizations.hold_attempted_names(attempted)),
        Job(60.0, lambda: decisions.expire(settings.registry_pending_ttl_hours)),
    ]
