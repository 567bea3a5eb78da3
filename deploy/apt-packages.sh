#!/bin/sh
# Installs missing Debian packages. Without root or sudo it prints the command that installs them.
#   apt-packages.sh run    Python with venv
#   apt-packages.sh plugin a C compiler and headers, to build deploy/mosquitto/plugin
#   apt-packages.sh broker the packages of `plugin`, Mosquitto and its clients
#   apt-packages.sh test   Python, the packages of `broker`, openssl, Chromium, Prometheus, slapd, Node with npm
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=

# need PACKAGES COMMAND...: PACKAGES are missing if COMMAND fails.
need() {
	packages=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $packages"
}

# Ask the compiler and not dpkg: the header may come from elsewhere.
has_header() {
	echo "#include <$1>" | gcc -E -o /dev/null -x c -
}

need_python() {
	need python3 command -v "${PYTHON:-python3}"
	need python3-venv "${PYTHON:-python3}" -c 'import ensurepip, venv'
}

need_plugin() {
	need "gcc libc6-dev" has_header stdio.h
	need mosquitto-dev has_header mosquitto_broker.h
	need libmosquitto-dev has_header mosquitto.h
	need libcurl4-openssl-dev has_header curl/curl.h
	need libcjson-dev has_header cjson/cJSON.h
	need libssl-dev has_header openssl/ssl.h
	need uthash-dev has_header uthash.h
}

need_broker() {
	need_plugin
	need mosquitto command -v mosquitto
	need mosquitto-clients command -v mosquitto_pub
}

need_tests() {
	need openssl command -v openssl
	need chromium-headless-shell command -v chromium-headless-shell
	need prometheus command -v promtool
	need slapd command -v slapd
	need "nodejs npm" command -v npm
	need fonts-dejavu-core test -d /usr/share/fonts/truetype/dejavu
}

case ${1:-run} in
run) need_python ;;
plugin) need_plugin ;;
broker) need_broker ;;
test) need_python && need_broker && need_tests ;;
*) echo "usage: $0 run|plugin|broker|test" >&2 && exit 2 ;;
esac
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then as_root='sudo -n'; fi
if ! command -v apt-get >/dev/null || ! $as_root true 2>/dev/null; then
	echo "Packages are missing. Install them first:  sudo apt-get install$missing" >&2
	exit 1
fi
echo "Installing$missing"
# These packages would start a service. A masked unit is started neither now nor at boot.
for unit in prometheus slapd; do
	case $missing in
	*$unit*)
		echo "Masking $unit.service; to run it as a service:  sudo systemctl unmask $unit"
		$as_root mkdir -p /etc/systemd/system
		$as_root ln -sf /dev/null "/etc/systemd/system/$unit.service"
		;;
	esac
done
$as_root apt-get -o DPkg::Lock::Timeout=300 update -qq
# shellcheck disable=SC2086 # each word is a package
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing >/dev/null
