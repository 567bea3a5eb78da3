"""`make broker`: Debian's Mosquitto on port 1883, with the tests' plugin as its go-auth, asks a service on port 8080.

To try things without Docker; for real use see deploy/mosquitto/README.md.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

from tests.broker import BrokerError, Mosquitto, build_plugin, go_auth_config

_BUILD = Path(__file__).parent / ".build"


def main() -> None:
    """Serve MQTT until interrupted."""
    config = go_auth_config(plugin=build_plugin(_BUILD), service_port=8070, listener_port=1883)
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Mosquitto(config, Path(directory)):
                print("Mosquitto on 127.0.0.1:1883 asks authsvc on 127.0.0.1:8080; Ctrl-C ends it", flush=True)  # noqa: T201
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
        except BrokerError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
