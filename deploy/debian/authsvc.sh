#!/bin/sh
# Runs authsvc with the settings of the installed service, /etc/authsvc/authsvc.env.
set -eu
settings=/etc/authsvc/authsvc.env
if [ -r "$settings" ]; then
	set -a
	AUTHSVC_DATA_DIR=/var/lib/authsvc
	. "$settings"
	set +a
fi
# As root, files of the service would belong to root if these commands created them.
case ${1:-} in
init | migrate | restore | serve)
	if [ "$(id -u)" -eq 0 ]; then exec runuser -u authsvc -- /opt/authsvc/bin/authsvc "$@"; fi
	;;
esac
exec /opt/authsvc/bin/authsvc "$@"
