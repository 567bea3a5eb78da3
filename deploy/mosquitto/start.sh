#!/bin/sh
# Fills the webhook secret into mosquitto.conf and starts Mosquitto with the result.
#   start.sh           write it where only Mosquitto can read it, then become Mosquitto
#   start.sh --print   show it instead, secret included
# The secret comes from AUTHSVC_WEBHOOK_SECRET_FILE or AUTHSVC_WEBHOOK_SECRET, the service's own variables.
# MOSQUITTO_TEMPLATE and MOSQUITTO_CONF name other files to read and to write.
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

# In the shell alone: a command's arguments, the secret among them, could be seen by other users.
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
	# Started as root, Mosquitto becomes this user and must still read the file when told to reload.
	[ "$(id -u)" -ne 0 ] || chown mosquitto "$conf"
}

read_secret
if [ "${1:-}" = --print ]; then
	render
else
	write_conf
	exec mosquitto -c "$conf"
fi
