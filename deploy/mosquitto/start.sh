#!/bin/sh
# Fills the webhook secret into mosquitto.conf and starts Mosquitto with it.
#   start.sh           write the configuration to a file that only Mosquitto can read, then run Mosquitto
#   start.sh --print   print the configuration instead, with the secret
# The secret comes from AUTHSVC_WEBHOOK_SECRET_FILE or AUTHSVC_WEBHOOK_SECRET, as for authsvc itself.
# MOSQUITTO_TEMPLATE and MOSQUITTO_CONF set other paths for the input and the output.
set -eu
LC_ALL=C

template=${MOSQUITTO_TEMPLATE:-$(dirname "$0")/mosquitto.conf}
conf=${MOSQUITTO_CONF:-/run/mosquitto/mosquitto.conf}
placeholder='{{webhook_secret}}'

fail() {
	echo "start.sh: $1" >&2
	exit 1
}

read_secret() {
	secret=${AUTHSVC_WEBHOOK_SECRET:-}
	if [ -n "${AUTHSVC_WEBHOOK_SECRET_FILE:-}" ]; then
		[ -z "$secret" ] || fail "AUTHSVC_WEBHOOK_SECRET is set twice, also as AUTHSVC_WEBHOOK_SECRET_FILE"
		secret=$(cat "$AUTHSVC_WEBHOOK_SECRET_FILE") || fail "cannot read AUTHSVC_WEBHOOK_SECRET_FILE"
	fi
	case $secret in
	"") fail "set AUTHSVC_WEBHOOK_SECRET_FILE or AUTHSVC_WEBHOOK_SECRET; \`make secrets\` makes such a file" ;;
	*[!A-Za-z0-9._~-]*) fail "the webhook secret becomes part of a URL: use only A-Z a-z 0-9 . _ ~ -" ;;
	esac
}

# Shell built-ins only: other users could read the secret in the arguments of a command.
render() {
	while IFS= read -r line; do
		case $line in
		*"$placeholder"*) line=${line%%"$placeholder"*}$secret${line#*"$placeholder"} ;;
		esac
		printf '%s\n' "$line"
	done <"$template"
}

write_conf() {
	mkdir -p "$(dirname "$conf")"
	rm -f "$conf"
	(umask 077 && render >"$conf")
	# Mosquitto started as root switches to this user and must still be able to read the file on SIGHUP.
	[ "$(id -u)" -ne 0 ] || chown mosquitto "$conf"
}

read_secret
if [ "${1:-}" = --print ]; then
	render
else
	write_conf
	exec mosquitto -c "$conf"
fi
