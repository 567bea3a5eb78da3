#!/bin/sh
# Builds build/authsvc_VERSION_ARCHITECTURE.deb: a Python environment in /opt/authsvc with the libraries of
# requirements.lock, the systemd units, and the command /usr/bin/authsvc. Needs dpkg-deb and network.
set -eu
umask 022
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-/usr/bin/python3}

command -v dpkg-deb >/dev/null || { echo "build.sh: dpkg-deb is missing; build the package on Debian" >&2; exit 1; }
# The environment uses the Python of the machine that it is installed on, of this version.
minor=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$PYTHON" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' authsvc/__init__.py)
architecture=$(dpkg --print-architecture)
package=build/authsvc_${version}_$architecture.deb

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Building writes into the source tree.
mkdir -p "$work/source" "$root"
cp -r setup.cfg pyproject.toml README.md LICENSE CHANGELOG.md authsvc registry docs "$work/source"
"$PYTHON" -m venv "$work/build"
"$work/build/bin/pip" install --quiet --require-hashes --requirement requirements-build.lock
"$work/build/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work" "$work/source"

mkdir -p "$root/opt"
"$PYTHON" -m venv --without-pip --symlinks "$root/opt/authsvc"
pip="$work/build/bin/pip --python $root/opt/authsvc/bin/python install --quiet --no-compile"
$pip --require-hashes --only-binary :all: --requirement requirements.lock
$pip --no-deps --no-index "$work"/authsvc-*.whl
# What names the directory that it was built in, and the commands of libraries.
ln -sfn /usr/bin/python3 "$root/opt/authsvc/bin/python3"
find "$root/opt/authsvc/bin" -mindepth 1 ! -name 'python*' -delete
find "$root/opt/authsvc/bin" -name "python$minor" -exec ln -sfn python3 {} \;
rm "$root"/opt/authsvc/lib/python*/site-packages/authsvc-*.dist-info/direct_url.json
sed -i '/^command = /d; s|^home = .*|home = /usr/bin|; s|^executable = .*|executable = /usr/bin/python3|' "$root/opt/authsvc/pyvenv.cfg"
cat >"$root/opt/authsvc/bin/authsvc" <<'PROGRAM'
#!/opt/authsvc/bin/python3
import sys

from authsvc.cli.main import main

sys.exit(main())
PROGRAM
chmod 755 "$root/opt/authsvc/bin/authsvc"
"$root/opt/authsvc/bin/python3" -m compileall -q --invalidation-mode unchecked-hash -s "$root" "$root/opt/authsvc/lib"

install -D -m 755 deploy/debian/authsvc.sh "$root/usr/bin/authsvc"
install -D -m 640 deploy/systemd/authsvc.env "$root/etc/authsvc/authsvc.env"
install -D -m 644 deploy/systemd/authsvc.sysusers "$root/usr/lib/sysusers.d/authsvc.conf"
install -D -m 644 deploy/systemd/authsvc.tmpfiles "$root/usr/lib/tmpfiles.d/authsvc.conf"
install -d "$root/lib/systemd/system"
install -m 644 deploy/systemd/*.service deploy/systemd/*.target deploy/systemd/*.timer "$root/lib/systemd/system"
install -d "$root/usr/share/doc"
mv "$root/opt/authsvc/share/doc/authsvc" "$root/usr/share/doc/authsvc"
install -m 644 LICENSE "$root/usr/share/doc/authsvc/copyright"

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
	install -m 755 "deploy/debian/$script" "$root/DEBIAN/$script"
done
echo /etc/authsvc/authsvc.env >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<CONTROL
Package: authsvc
Version: $version
Architecture: $architecture
Maintainer: The authors of authsvc <authsvc@localhost>
Section: net
Priority: optional
Depends: python3 (>= $minor), python3 (<< $next), systemd
Suggests: mosquitto, postgresql
Installed-Size: $(du -sk "$root" | cut -f1)
Description: access control for the MQTT broker Mosquitto
 authsvc decides which MQTT clients may connect to a broker and which topics
 they may use: users, roles, permissions, certificates, a registry for new
 devices, a web page, a REST API and a command line.
CONTROL
mkdir -p build
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
