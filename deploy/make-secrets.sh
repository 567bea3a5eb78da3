#!/bin/sh
# Creates the secrets for compose.yaml in deploy/secrets/. An existing file is not changed.
set -eu
umask 022
cd "$(dirname "$0")"

fail() {
	echo "make-secrets.sh: $1" >&2
	exit 1
}

random() {
	od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# write NAME: store standard input, completely or not at all.
write() {
	cat >"secrets/.$1"
	[ -s "secrets/.$1" ] || fail "deploy/secrets/$1 could not be created; see the error above"
	mv "secrets/.$1" "secrets/$1"
	echo "created deploy/secrets/$1"
}

# The directory's mode keeps other users out. The files are readable by all, because a container reads them under
# another user id.
mkdir -p secrets
chmod 700 secrets

for name in webhook_secret admin_password postgres_password; do
	[ -s "secrets/$name" ] || random | write "$name"
done
[ -s secrets/database_url ] ||
	printf 'postgresql://authsvc:%s@postgres/authsvc' "$(cat secrets/postgres_password)" | write database_url

# The certificate of Mosquitto's TLS listener. It is self-signed, because authsvc's authority does not exist before the
# first start, so clients need it as their --cafile.
if [ ! -s secrets/server.key ]; then
	[ ! -s secrets/server.crt ] || fail "deploy/secrets/server.crt exists without server.key; restore the key or remove server.crt"
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | write server.key
fi
if [ ! -s secrets/server.crt ]; then
	openssl req -x509 -new -key secrets/server.key -days 3650 -subj /CN=localhost \
		-addext subjectAltName=DNS:localhost,DNS:mosquitto,IP:127.0.0.1 | write server.crt
	echo "server.crt is self-signed, for a first try. deploy/mosquitto/README.md says how to replace it by a certificate" \
		"of authsvc"
fi
