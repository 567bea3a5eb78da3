# `make images` adds the digest to each image, where docker reaches its registry; the tag alone may move.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/authsvc
# Every file that is installed has a hash that `make lock` has written down, also what builds our own package.
COPY requirements.lock requirements-build.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-build.lock \
    && pip --python /opt/authsvc/bin/python install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY authsvc authsvc
COPY registry registry
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && pip --python /opt/authsvc/bin/python install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin authsvc \
    && install --directory --owner=authsvc --mode=0700 /data \
    # A new volume takes this over: what runs beside a broker, under the broker's number, writes there.
    && install --directory --mode=1777 /pki
COPY --from=build /opt/authsvc /opt/authsvc
# To listen beyond loopback the service demands a webhook secret, and does not start without one.
ENV PATH=/opt/authsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AUTHSVC_DATA_DIR=/data \
    AUTHSVC_BIND=0.0.0.0:8080
USER authsvc
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen('http://127.0.0.1:' + os.environ['AUTHSVC_BIND'].rpartition(':')[2] + '/healthz', timeout=2)"]
ENTRYPOINT ["authsvc"]
CMD ["serve"]
