# A registry can change what a tag names: `make images` adds the digest of each image.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/authsvc
# `make lock` wrote a hash for each file that is installed here, the build tools of this package included.
COPY requirements.lock requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-build.lock \
    && pip --python /opt/authsvc/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY authsvc authsvc
COPY registry registry
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && pip --python /opt/authsvc/bin/python install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl

# Mosquitto's plugin of authsvc, for Debian's Mosquitto.
FROM debian:12.12-slim AS plugin
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        gcc libc6-dev libcjson-dev libcurl4-openssl-dev libmosquitto-dev libssl-dev make mosquitto-dev uthash-dev
WORKDIR /src
COPY deploy/mosquitto/plugin ./
RUN make

# `docker build --target mosquitto .` builds Debian's Mosquitto with the plugin.
FROM debian:12.12-slim AS mosquitto
# The user id is that of go-auth's image: containers beside the broker send it signals under this id.
RUN groupadd --gid 1000 mosquitto \
    && useradd --uid 1000 --gid mosquitto --no-create-home --home-dir /var/lib/mosquitto --shell /usr/sbin/nologin mosquitto \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libcjson1 libcurl4 mosquitto \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=mosquitto --group=mosquitto --mode=0700 /var/lib/mosquitto
COPY --from=plugin /src/mosquitto_authsvc.so /usr/lib/mosquitto_authsvc.so
USER mosquitto
VOLUME /var/lib/mosquitto
EXPOSE 1883 8883
CMD ["mosquitto", "-c", "/etc/mosquitto/mosquitto.conf"]

# authsvc. The last stage is the one that is built without --target.
FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin authsvc \
    && install --directory --owner=authsvc --mode=0700 /data \
    # A new volume copies this mode: containers beside a broker write here under the broker's user id.
    && install --directory --mode=1777 /pki
COPY --from=build /opt/authsvc /opt/authsvc
# These addresses are reachable from outside, so the service does not start without a webhook secret.
ENV PATH=/opt/authsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AUTHSVC_DATA_DIR=/data \
    AUTHSVC_BIND=0.0.0.0:8080 \
    AUTHSVC_BROKER_BIND=0.0.0.0:8070
USER authsvc
WORKDIR /data
VOLUME /data
EXPOSE 8070 8080
# Healthy if both listeners answer; with very many users that takes minutes after a start. Replace this check in a container that runs `serve --only ...`.
HEALTHCHECK --interval=10s --timeout=3s --start-period=600s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; [web.urlopen('http://127.0.0.1:' + os.environ[name].rpartition(':')[2] + '/healthz', timeout=1) for name in ('AUTHSVC_BIND', 'AUTHSVC_BROKER_BIND')]"]
ENTRYPOINT ["authsvc"]
CMD ["serve"]
