#!/usr/bin/env bash
# Installs the Debian packages that longhaul needs. Looks first: when all is there it does nothing.
#   scripts/setup.sh           to build and run
#   scripts/setup.sh --tests   to test as well
set -euo pipefail

build=(gcc libc6-dev cmake ninja-build pkg-config ccache
       libzmq3-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
       liblmdb-dev libopenblas-dev libyaml-dev libcjson-dev libxxhash-dev libarchive-dev
       libmicrohttpd-dev libopenmpi-dev openmpi-bin)
tests=(libcmocka-dev clang-format python3 python3-numpy python3-yaml xz-utils zstd bzip2
       slurm-wlm munge procps iproute2 nftables iptables libnetfilter-queue-dev)

want=("${build[@]}")
case "${1-}" in
    "") ;;
    --tests) want+=("${tests[@]}") ;;
    *) sed -n '2,4s/^# *//p' "$0"; [[ $1 == --help ]] && exit 0; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "setup: this machine has no dpkg; install the equivalents of: ${want[*]}" >&2
    exit 1
fi

# dpkg-query fails where it does not know one of them; what it knows is printed all the same
have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${want[@]}" 2>/dev/null | sed -n 's/^ii *//p' || true)
missing=()
for p in "${want[@]}"; do
    grep -qxF "$p" <<<"$have" || missing+=("$p")
done
((${#missing[@]})) || exit 0

as_root=()
if ((EUID != 0)); then
    command -v sudo >/dev/null || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -q "$@"
}

echo "setup: installing ${missing[*]}"
# A fresh machine has no package lists, an old one may have stale ones: fetch them in either case,
# and not otherwise.
apt-cache show --no-all-versions "${missing[@]}" >/dev/null 2>&1 || apt update
if ! apt install -y --no-install-recommends "${missing[@]}"; then
    apt update
    apt install -y --no-install-recommends "${missing[@]}"
fi
