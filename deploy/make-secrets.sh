#!/bin/sh
# Makes the secrets that compose.yaml hands to its containers, each once: a file that exists is left alone.
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

# write NAME: store standard input, complete or not at all.
write() {
	cat >"secrets/.$1"
	[ -s "secrets/.$1" ] || fail "deploy/secrets/$1 could not be made"
	mv "secrets/.$1" "secrets/$1"
	echo "made deploy/secrets/$1"
}

# The directory keeps other users out. The files themselves are readable by all, because a container
# sees only the file, with this owner's number and under an account of its own.
mkdir -p secrets
chmod 700 secrets

for name in webhook_secret admin_password postgres_password; do
	[ -s "secrets/$name" ] || random | write "$name"
done
[ -s secrets/database_url ] ||
	printf 'postgresql://authsvc:%s@postgres/authsvc' "$(cat secrets/postgres_password)" | write database_url

# What Mosquitto shows to clients that connect with TLS. This certificate is for a first try: it signs itself, so clients
# need it as their --cafile. Put one that they trust anyway, and its key, in its place.
if [ ! -s secrets/server.key ]; then
	[ ! -s secrets/server.crt ] || fail "deploy/secrets/server.crt is there without its server.key"
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 | write server.key
fi
[ -s secrets/server.crt ] ||
	openssl req -x509 -new -key secrets/server.key -days 3650 -subj /CN=localhost \
		-addext subjectAltName=DNS:localhost,DNS:mosquitto,IP:127.0.0.1 | write server.crt
