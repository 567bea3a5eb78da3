"""The client registry: strangers ask, an administrator grants.

A package beside `authsvc`: it hears of unknown usernames through one signal, adds its own views to the app, and calls
use cases. Nothing in `authsvc` imports it but the two places where parts are put together, `app` and `cli`.
"""
