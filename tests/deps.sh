#!/bin/bash
# Installs what the build and the tests need, by apt; does nothing, in milliseconds, where all of it is there.
# Owns: the list of packages. Nothing of Xen is installed but its development files: the test host unpacks Xen itself.
# Invariants:
#   D1  never asks a question and never needs a terminal.
#   D2  installs only what dpkg does not have, without recommended packages.
#   D3  where it may not install it prints the exact command and exits 1; nothing is half done silently.
set -uo pipefail

# Build: compiler, Xen's control libraries and public headers, JSON, CRC and hashes, unit tests.
# Test host: QEMU, and what builds dom0's initramfs. Traces: zstd.
readonly PACKAGES=(
    gcc make libc6-dev binutils
    libxen-dev libjansson-dev zlib1g-dev libcmocka-dev
    qemu-system-x86 cpio xz-utils
    libzstd-dev
)

missing_packages() {
    local name status
    for name in "${PACKAGES[@]}"; do
        # shellcheck disable=SC2016  # dpkg-query expands it
        status=$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) || status=''
        [[ $status == installed ]] || echo "$name"
    done
}

if ! command -v dpkg-query >/dev/null; then
    echo "deps: this is not a Debian system; install what corresponds to: ${PACKAGES[*]}" >&2
    echo "deps: then run the build without this step: make all tests" >&2
    exit 1
fi

# One query for the usual case: nothing is missing.
# shellcheck disable=SC2016
installed=$(dpkg-query -W -f='${db:Status-Status}\n' "${PACKAGES[@]}" 2>/dev/null | grep -c '^installed$')
((installed == ${#PACKAGES[@]})) && exit 0

mapfile -t missing < <(missing_packages)
((${#missing[@]})) || exit 0

root=()
if ((EUID != 0)); then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        root=(sudo -n)
    else
        echo "deps: not root, and sudo asks for a password. Missing packages; install them with:" >&2
        echo "    sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
fi

apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

echo "deps: installing ${missing[*]}"
# Package lists are fetched only where they are absent or too old to name files that still exist.
if ! apt install --no-install-recommends "${missing[@]}"; then
    echo "deps: again, with fresh package lists"
    apt update && apt install --no-install-recommends "${missing[@]}"
fi

mapfile -t missing < <(missing_packages)
if ((${#missing[@]})); then
    echo "deps: still missing: ${missing[*]}. Install them with:" >&2
    echo "    apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
