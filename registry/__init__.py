"""The client registry: an unknown device registers, and an administrator grants or denies it access.

`authsvc` reports unknown usernames through one signal and does not import this package. The exceptions are the modules
that put all parts together: `app`, `cli.main` and `cli.service`.
"""
