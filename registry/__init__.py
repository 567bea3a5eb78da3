"""The client registry: strangers ask, an administrator grants.

Hears of an unknown username through `authsvc.signals.unknown_username` and
calls use cases; nothing in `authsvc` but `app` may import it. Its parts are
listed in `docs/architecture.md`.
"""
