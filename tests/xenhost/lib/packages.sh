# shellcheck shell=bash
# Owns: the unpacked Debian packages in the cache ($ROOTFS), and nothing that is installed on this machine.
# Invariants:
#   P1  every package file was checked against the SHA256 of the (signed) package index before it was unpacked.
#   P2  $ROOTFS is complete when its stamp exists; the stamp lists package, version and hash.
#   P3  no step needs root: where the system has no package lists, lists of our own are fetched into the cache.
# Why unpack: installing Xen changes the boot loader, installing a kernel runs hooks. A test host has no right to either.

# Libraries are listed by package, because a NEEDED entry does not name one; elf.sh checks that the list suffices.
readonly BASE_PACKAGES=(
    xen-hypervisor-4.17-amd64 xen-utils-4.17 xenstore-utils
    libxenmisc4.17 libxencall1 libxendevicemodel1 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenhypfs1
    libxenstore4 libxentoolcore1 libxentoollog1
    libc6 libgcc-s1 libyajl2 libjansson4 libext2fs2 libcom-err2 liblzma5 libuuid1 libzstd1 zlib1g libbz2-1.0 liblzo2-2
    busybox-static musl musl-dev linux-libc-dev
)
readonly SYMBOL_PACKAGES=(xen-hypervisor-4.17-amd64-dbg xen-utils-4.17-dbg)

# A changed list makes a new folder, not a stale one.
ROOTFS=$CACHE/rootfs-$(printf '%s ' "${BASE_PACKAGES[@]}" | sha256sum | cut -c1-8)
SYMBOLS=$CACHE/symbols
APT_OPTIONS=()

# Uses the system's package lists, or fetches lists of our own where the system has none (P3).
packages_lists() {
    apt-cache show xen-hypervisor-4.17-amd64 >/dev/null 2>&1 && return
    local state=$CACHE/apt
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    APT_OPTIONS=(-o "Dir::State::Lists=$state/lists" -o "Dir::Cache=$state/archives" -o "Debug::NoLocking=1")
    if ! apt-cache "${APT_OPTIONS[@]}" show xen-hypervisor-4.17-amd64 >/dev/null 2>&1; then
        log "fetching package lists"
        apt-get "${APT_OPTIONS[@]}" -q update >"$CACHE/apt-update.log" 2>&1 ||
            die $EXIT_MISSING "apt-get update failed; see $CACHE/apt-update.log"
    fi
    apt-cache "${APT_OPTIONS[@]}" show xen-hypervisor-4.17-amd64 >/dev/null 2>&1 ||
        die $EXIT_MISSING "package xen-hypervisor-4.17-amd64 is not in this machine's apt sources (Debian 12 has it)"
}

# package_kernel: the versioned package behind linux-image-amd64, Debian's stock kernel.
package_kernel() {
    apt-cache "${APT_OPTIONS[@]}" depends linux-image-amd64 |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1
}

# packages_fetch PACKAGE...: brings the candidate version of each into $CACHE/debs and prints "hash file" lines.
# apt is asked once for all: a call costs a second, most of it for reading the lists.
packages_fetch() {
    local name version sha file missing=() wanted
    wanted=$(apt-cache "${APT_OPTIONS[@]}" --no-all-versions show "$@" |
        awk '/^Package: / { p = $2 } /^Version: / { v = $2 } /^SHA256: / { print p, v, $2 }') || true
    for name in "$@"; do
        [[ $'\n'$wanted == *$'\n'"$name "* ]] || die $EXIT_MISSING "package $name (with a SHA256) is not in this machine's apt sources"
    done
    while read -r name version sha; do
        file=$(package_file "$name" "$version")
        if package_intact "$file" "$sha"; then continue; fi
        rm -f "$file"
        missing+=("$name=$version")
    done <<<"$wanted"
    if ((${#missing[@]})); then
        log "downloading ${#missing[@]} packages"
        # apt keeps what is whole and resumes what is partial in this folder, so a killed run is not lost.
        (cd "$CACHE/debs" && apt-get "${APT_OPTIONS[@]}" -q -o APT::Sandbox::User=root -o Acquire::Retries=3 \
            download "${missing[@]}") >"$CACHE/download.log" 2>&1 ||
            die $EXIT_MISSING "downloading failed: $(grep -m 1 '^[EW]:' "$CACHE/download.log"); see $CACHE/download.log"
    fi
    while read -r name version sha; do
        file=$(package_file "$name" "$version")
        package_intact "$file" "$sha" || die $EXIT_MISSING "package $file does not have the hash $sha of the package index"
        printf '%s  %s\n' "$sha" "$file"
    done <<<"$wanted"
}

# package_file NAME VERSION: where apt-get download puts it (the epoch's colon is escaped; the architecture varies).
package_file() {
    local file
    for file in "$CACHE/debs/$1_${2//:/%3a}"_*.deb; do echo "$file"; done
}

package_intact() { [[ -f $1 ]] && echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

# packages_unpack TARGET PACKAGE...: fetches, checks and unpacks into TARGET (P1, P2).
packages_unpack() {
    local target=$1 new=$1.new list file
    shift
    [[ -f $target/.complete && ${REFRESH:-0} == 0 ]] && return
    packages_lists
    mkdir -p "$CACHE/debs"
    rm -rf "$new"
    mkdir -p "$new"
    list=$new/.packages
    local packages=("$@") i kernel
    for i in "${!packages[@]}"; do
        [[ ${packages[i]} == linux-image-amd64 ]] || continue
        kernel=$(package_kernel)
        [[ -n $kernel ]] || die $EXIT_MISSING "package linux-image-amd64 is not in this machine's apt sources"
        packages[i]=$kernel
    done
    packages_fetch "${packages[@]}" >"$list" || exit
    log "unpacking $(wc -l <"$list") packages"
    while read -r _ file; do
        dpkg -x "$file" "$new" || die $EXIT_MISSING "cannot unpack $file"
    done <"$list"
    cp "$list" "$new/.complete"
    rm -rf "$target"
    mv "$new" "$target"
}

packages_prepare() {
    require apt-get apt
    require dpkg dpkg
    [[ -f $ROOTFS/.complete && ${REFRESH:-0} == 0 ]] ||
        with_lock packages packages_unpack "$ROOTFS" "${BASE_PACKAGES[@]}" linux-image-amd64 || exit
    [[ ${WANT_SYMBOLS:-0} == 0 || -f $SYMBOLS/.complete ]] ||
        with_lock packages packages_unpack "$SYMBOLS" "${SYMBOL_PACKAGES[@]}" || exit
    VMLINUZ=$(echo "$ROOTFS"/boot/vmlinuz-*)
    KERNEL_RELEASE=${VMLINUZ##*/vmlinuz-}
    [[ -f $VMLINUZ ]] || die $EXIT_MISSING "no kernel in $ROOTFS/boot (use --refresh)"
}
