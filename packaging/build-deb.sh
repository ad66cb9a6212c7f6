#!/bin/sh
# Builds build/flyball_<version>_<architecture>.deb from the committed lock file; does nothing when it is up to date.
#
# DEB_LEVEL=1 compresses less, for tests: three times as fast. Nothing smaller than what is there already is replaced.
#
# wheels (network or pip's cache, hashes checked) -> build/deb/flyball-<version>/ -> debian/rules (no network, no root)
set -eu
cd "$(dirname "$0")/.."

PYTHON_MINOR=3.11
DEB_LEVEL=${DEB_LEVEL:-6}
export DEB_LEVEL
PARTS="pyproject.toml README.md LICENSE agent backends kernels fleet systemd packaging examples/defects/ladder"

die() { printf 'flyball: %s\n' "$*" >&2; exit 1; }

for tool in dpkg-buildpackage dh; do
    command -v "$tool" >/dev/null || die "$tool is missing: run  sudo apt-get install debhelper dpkg-dev  and then make deb again"
done
architecture=$(dpkg --print-architecture)
lock=packaging/requirements-$architecture.txt
[ -e "$lock" ] || die "there is no package for $architecture yet ($lock is missing)"
for part in $PARTS; do [ -e "$part" ] || die "$part is missing: the package needs it"; done

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' agent/flyball/__init__.py)
[ -n "$version" ] || die "agent/flyball/__init__.py: expected a line __version__ = \"...\""
deb=build/flyball_${version}_$architecture.deb

# shellcheck disable=SC2086  # a list of words
inputs() { find $PARTS -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64; }
fingerprint=$(inputs)
read -r built_level built_from 2>/dev/null <"$deb.inputs" || { built_level=0 built_from=; }
if [ -e "$deb" ] && [ "$built_from" = "$fingerprint" ] && [ "$built_level" -ge "$DEB_LEVEL" ]; then
    echo "flyball: $deb is up to date"
    exit 0
fi

# The date of the last commit stands for every date in the package, so that the same sources give the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
umask 022

tree=build/deb/flyball-$version
rm -rf build/deb
mkdir -p "$tree"
# Wheels are built from a copy: setuptools would otherwise leave build/lib in the checkout and pack what is stale in it.
mkdir build/deb/project
# shellcheck disable=SC2086
tar -c --exclude=__pycache__ --exclude='*.egg-info' $PARTS | tar -x -C build/deb/project
.venv/bin/python packaging/tree.py "$lock" build/deb/project "$tree/site-packages" "$architecture" $PYTHON_MINOR ||
    die "the wheels of $lock could not be unpacked (see above)"

cp -R packaging/debian "$tree/debian"
for kind in service sysusers tmpfiles; do cp "systemd/flyball.$kind" "$tree/debian/flyball.$kind"; done
.venv/bin/python packaging/copyright.py "$tree/site-packages" >"$tree/debian/copyright"
{
    printf 'flyball (%s) unstable; urgency=medium\n\n' "$version"
    printf '  * Release %s.\n\n' "$version"
    printf ' -- Flyball maintainers <maintainers@flyball.invalid>  %s\n' "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} >"$tree/debian/changelog"
cp -R packaging/files/. "$tree/"
cp README.md "$tree/"
cp -R examples/defects/ladder "$tree/example"

(cd "$tree" && dpkg-buildpackage -b -us -uc) >build/deb/build.log 2>&1 ||
    die "dpkg-buildpackage failed: $(tail -n 1 build/deb/build.log) (details: build/deb/build.log)"
mv "build/deb/flyball_${version}_$architecture.deb" "$deb"
printf '%s %s\n' "$DEB_LEVEL" "$fingerprint" >"$deb.inputs"
rm -rf "$tree" build/deb/project
echo "flyball: $deb, $(du -k "$deb" | awk '{printf "%.1f", $1 / 1024}') MB"
