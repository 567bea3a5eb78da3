#!/bin/sh
# Makes the secrets that compose.yaml hands to its containers, each once: a file that exists is left alone.
set -eu
umask 022
cd "$(dirname "$0")"

random() {
	od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# write NAME: store standard input, complete or not at all.
write() {
	cat >"secrets/.$1"
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
