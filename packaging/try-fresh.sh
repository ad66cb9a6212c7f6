#!/bin/bash
# Root only: does what the README says in a minimal Debian that has python3, make and git and nothing else.
#
#   packaging/try-fresh.sh                the last commit, cloned
#   TRY_DIRTY=1 packaging/try-fresh.sh    the working tree as it is
#   SUITE=trixie ... another release;  TRY_DIR=... where the Debian is made;  DEMO_ARGS=... what the demo is given
#
# The Debian reaches the package index as this machine does: PIP_* variables, pip.conf, certificates and local wheel
# folders come along. It runs in its own mount and process namespaces: nothing is left when the script ends.
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
  [[ $(id -u) == 0 ]] || { echo "try-fresh: needs root (chroot, mount namespace): run  sudo make try-fresh" >&2; exit 1; }
  for tool in mmdebstrap unshare git; do
    command -v $tool >/dev/null || { echo "try-fresh: $tool is missing: run  apt-get install $tool" >&2; exit 1; }
  done
  work=$(mktemp -d "${TRY_DIR:-/var/tmp}/flyball-fresh.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT # by then the mounts and processes below it went with their namespaces
  unshare --mount --propagation private --pid --fork --kill-child "$0" --inside "$work"
  exit
fi

repo=$(cd "$(dirname "$0")/.." && pwd)
SUITE=${SUITE:-bookworm}
DEMO_ARGS=${DEMO_ARGS:---seconds 20}
root=$2/root

step() { printf '\n== %s\n' "$*"; }

step "a minimal Debian $SUITE"
sources=/etc/apt/sources.list.d/debian.sources
[[ -e $sources ]] || sources=/etc/apt/sources.list
mmdebstrap --quiet --variant=minbase --mode=root --format=directory \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --include=python3,make,git "$SUITE" "$root" "$sources"
cp /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # packages must start no service here
chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
mount --rbind --make-rprivate /sys "$root/sys"
mount --rbind --make-rprivate /dev "$root/dev"

# What pip is told on this machine.
keep=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive)
settings=
for file in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
  if [[ -e $file ]]; then settings+=$(<"$file")$'\n'; fi
done
while IFS= read -r variable; do
  keep+=("$variable")
  settings+=${variable#*=}$'\n'
done < <(env | grep -E '^(PIP_[A-Z_]+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|https?_proxy|no_proxy)=' || :)
if [[ -e /etc/pip.conf ]]; then cp /etc/pip.conf "$root/etc/pip.conf"; fi
for file in .config/pip/pip.conf .pip/pip.conf; do
  for home in root etc/skel; do
    if [[ -e $HOME/$file ]]; then install -D "$HOME/$file" "$root/$home/$file"; fi
  done
done
# Every local path in there: certificate files are copied, folders with wheels are bound. A folder `simple` is an
# index whose links may lead to its neighbours.
while IFS= read -r path; do
  path=${path%/simple}
  if [[ -f $path ]]; then
    install -D "$path" "$root$path"
    # The package ca-certificates, once installed in there, writes its bundle anew: from its own and these.
    if grep -q 'BEGIN CERTIFICATE' "$path"; then install -D "$path" "$root/usr/local/share/ca-certificates/host.crt"; fi
  elif [[ -d $path && ! -e $root$path ]]; then
    mkdir -p "$root$path"
    mount --rbind -o ro "$path" "$root$path"
  fi
done < <(grep -oE '(file://)?/[^[:space:]:=,]+' <<<"$settings" | sed 's#^file://##' | grep -v '^//' | sort -u)

step "the sources"
if [[ ${TRY_DIRTY:-} ]]; then
  mkdir "$root/srv/flyball"
  (cd "$repo" && git ls-files -coz --exclude-standard | xargs -0 -r ls -d 2>/dev/null | tar -cT - | tar -xC "$root/srv/flyball")
  git -C "$root/srv/flyball" init -q
else
  git clone -q --no-local "$repo" "$root/srv/flyball"
fi
chroot "$root" useradd -m stranger
cp -R "$root/srv/flyball" "$root/root/flyball"
cp -R "$root/srv/flyball" "$root/home/stranger/flyball"
chroot "$root" chown -R root:root /root/flyball
chroot "$root" chown -R stranger:stranger /home/stranger/flyball

as() { # as USER COMMAND: in that user's clone
  local user=$1 home=/root
  [[ $user == root ]] || home=/home/$user
  chroot --userspec="$user:$user" "$root" env -i "${keep[@]}" HOME="$home" USER="$user" TERM=dumb \
    sh -c "cd $home/flyball && $2"
}
failed=0
expect() { # expect USER COMMAND: it works
  step "$1: $2"
  local begun=$SECONDS
  if as "$1" "$2" </dev/null; then echo "-- worked in $((SECONDS - begun)) s"; else
    echo "-- FAILED with exit code $? after $((SECONDS - begun)) s"
    failed=1
  fi
}
expect_line() { # expect_line USER COMMAND PATTERN: it fails with one line that matches, and make's own
  step "$1: $2 (must say in one line what to do)"
  local output
  if output=$(as "$1" "$2" </dev/null 2>&1); then
    echo "$output"
    echo "-- FAILED: it worked, which was not expected"
    failed=1
  fi
  echo "$output"
  if [[ $(grep -vc '^make: ' <<<"$output") != 1 || ! $output =~ $3 ]]; then
    echo "-- FAILED: expected one line with: $3"
    failed=1
  fi
}

# The unprivileged user first: what root installs afterwards would help.
for target in demo test; do
  expect_line stranger "make $target DEMO_ARGS='$DEMO_ARGS'" 'sudo apt-get install python3-venv'
done
expect root "make demo DEMO_ARGS='$DEMO_ARGS'"
expect root "make test"
expect root "make demo DEMO_ARGS='$DEMO_ARGS'"
expect stranger "make demo DEMO_ARGS='$DEMO_ARGS'"

if ((failed)); then step "FAILED (see above)"; else step "everything worked"; fi
exit $failed
