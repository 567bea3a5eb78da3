"""authsvc: access control for Mosquitto, asked over HTTP by its go-auth plugin."""

__version__ = "0.1.0"
