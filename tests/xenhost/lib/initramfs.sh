# shellcheck shell=bash
# Owns: what dom0 and the guests boot: kernel images and initramfs archives, built from the unpacked packages.
# Invariants:
#   R1  everything generated is cached under a hash of all that it was made from; a changed source makes a new name.
#   R2  archives are uncompressed: under software emulation unpacking costs more than copying.
#   R3  needs no root: ownership is written by cpio, device nodes come from devtmpfs.
# The stock kernel is handed over as the ELF image inside Debian's vmlinuz. It is the same kernel; what is saved is its
# own xz unpacking, which takes seconds under emulation, once for dom0 and once for each guest.

readonly DOM0_TOOLS=(
    usr/lib/xen-4.17/bin/{xl,xenstored,xenconsoled,xenconsole,xen-init-dom0,xen-mfndump,xen-hptool,xen-diag,xenctx,xen-cpuid,libxl-save-helper}
    usr/bin/xenstore
)
readonly XENSTORE_LINKS=(chmod exists list ls read rm watch write)
# In load order. 9p carries the results; virtio is its road.
readonly DOM0_MODULES=(
    drivers/xen/{xen-privcmd,xenfs/xenfs,xen-evtchn,xen-gntdev,xen-gntalloc}
    drivers/virtio/{virtio_ring,virtio,virtio_pci_modern_dev,virtio_pci_legacy_dev,virtio_pci}
    net/9p/{9pnet,9pnet_virtio} fs/netfs/netfs fs/fscache/fscache fs/9p/9p
    drivers/block/loop drivers/block/xen-blkback/xen-blkback
)
readonly GUEST_MODULES=(drivers/block/xen-blkfront)

BUILT=$CACHE/built
KERNEL_HEADERS=$ROOTFS/usr/include

# modules_add ROOT MODULE...: copies modules flat and writes their load order.
modules_add() {
    local root=$1 module
    shift
    mkdir -p "$root/lib/modules"
    for module in "$@"; do
        # A module may become built-in in a later kernel of the same release series.
        [[ -f $ROOTFS/lib/modules/$KERNEL_RELEASE/kernel/$module.ko ]] || continue
        cp "$ROOTFS/lib/modules/$KERNEL_RELEASE/kernel/$module.ko" "$root/lib/modules/"
        echo "${module##*/}.ko" >>"$root/lib/modules/order"
    done
}

# archive_pack ROOT FILE
archive_pack() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --quiet --null -o -H newc -R 0:0 >"$2.partial") ||
        die $EXIT_MISSING "cannot pack $2"
    mv "$2.partial" "$2"
}

# kernel_extract VMLINUZ FILE: the ELF image in a bzImage (offsets: Documentation/x86/boot.rst).
kernel_extract() {
    local image=$1 out=$2 setup offset length magic unpack
    setup=$(od -An -tu1 -j $((0x1f1)) -N1 "$image")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$image")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$image")
    offset=$(((setup + 1) * 512 + offset))
    magic=$(od -An -tx1 -j "$offset" -N4 "$image" | tr -d ' ')
    case $magic in
        fd377a58) unpack=xz ;;
        28b52ffd) unpack=zstd ;;
        1f8b*) unpack=gzip ;;
        *) die $EXIT_MISSING "kernel $image: unknown compression (magic $magic)" ;;
    esac
    require $unpack "${unpack/%xz/xz-utils}"
    # The last four bytes of the payload are its unpacked size, not part of the stream.
    head -c $((offset + length - 4)) "$image" | tail -c +$((offset + 1)) | $unpack -dc >"$out.partial" 2>/dev/null ||
        die $EXIT_MISSING "kernel $image: cannot unpack"
    mv "$out.partial" "$out"
}

# Guest programs are linked with the unpacked musl, so that no libc of this machine is in them.
musl_object() {
    local out=$1
    shift
    gcc -c -nostdinc -fno-pie -fno-stack-protector -isystem "$ROOTFS/usr/include/x86_64-linux-musl" -isystem "$KERNEL_HEADERS" \
        -isystem "$KERNEL_HEADERS/x86_64-linux-gnu" -isystem "$(gcc -print-file-name=include)" "$@" -o "$out" ||
        die $EXIT_MISSING "cannot compile ${*: -1}"
}

musl_link() {
    local out=$1 lib=$ROOTFS/usr/lib/x86_64-linux-musl
    shift
    gcc -static -nostdlib -no-pie "$lib/crt1.o" "$lib/crti.o" "$@" "$lib/libc.a" "$(gcc -print-libgcc-file-name)" "$lib/crtn.o" \
        -o "$out" || die $EXIT_MISSING "cannot link ${out##*/}"
    strip "$out"
}

boot_images_build() {
    XEN_IMAGE=$BUILT/xen-$(hash_of "$ROOTFS/boot/xen-4.17-amd64.gz")
    [[ -f $XEN_IMAGE ]] || { gzip -dc "$ROOTFS/boot/xen-4.17-amd64.gz" >"$XEN_IMAGE.partial" && mv "$XEN_IMAGE.partial" "$XEN_IMAGE"; }
    STOCK_KERNEL=$BUILT/vmlinux-$(hash_of "$VMLINUZ")
    [[ -f $STOCK_KERNEL ]] || kernel_extract "$VMLINUZ" "$STOCK_KERNEL"
}

# The verifier is compiled in two objects: what checks memory may not contain vector code, what checks vector state must.
guest_initramfs_build() {
    local sources=("$HERE"/guest/*.[ch]) root work source
    local flags=(-std=gnu11 -O2 -Wall -Wextra -Werror)
    STOCK_INITRD=$BUILT/guest-$(hash_of "${sources[@]}" "$HERE/lib/initramfs.sh" "$ROOTFS/.complete").cpio
    [[ -f $STOCK_INITRD ]] && return
    require gcc gcc
    log "building the guest initramfs"
    work=$BUILT/work.guest
    root=$work/root
    rm -rf "$work"
    mkdir -p "$root"/{dev,proc,sys,tmp,run}
    for source in "$HERE"/guest/*.c; do
        local limits=(-mgeneral-regs-only)
        [[ ${source##*/} != vector.c ]] || limits=(-fno-tree-vectorize)
        musl_object "$work/${source##*/}.o" "${flags[@]}" "${limits[@]}" "$source"
    done
    musl_link "$root/init" "$work"/*.o
    modules_add "$root" "${GUEST_MODULES[@]}"
    archive_pack "$root" "$STOCK_INITRD"
    rm -rf "$work"
}

dom0_initramfs_build() {
    local sources=("$HERE"/dom0/* "$HERE/lib/initramfs.sh") root work tool link
    DOM0_BASE=$BUILT/dom0-$(hash_of "${sources[@]}" "$ROOTFS/.complete").cpio
    [[ -f $DOM0_BASE ]] && return
    require gcc gcc
    require readelf binutils
    [[ -f /usr/include/libxl.h ]] || die $EXIT_MISSING "libxl.h is missing; install it with: apt-get install libxen-dev"
    log "building the dom0 initramfs"
    work=$BUILT/work.dom0
    root=$work/root
    rm -rf "$work"
    mkdir -p "$root"/{dev,proc,sys,run,tmp,results,boot,bin,sbin,lib64,usr/bin,usr/sbin,etc/xen/guests,etc/xen/scripts,var/log/xen/console,var/lib/xen,var/lib/xenstored}
    ln -s /run "$root/var/run"
    : >"$root/etc/xen/xl.conf"
    cp "$ROOTFS/bin/busybox" "$root/bin/busybox"
    for tool in "${DOM0_TOOLS[@]}"; do
        [[ -f $ROOTFS/$tool ]] || die $EXIT_MISSING "$tool is not in the packages"
        cp "$ROOTFS/$tool" "$root/usr/sbin/"
        elf_add_libraries "$root" "$ROOTFS/$tool"
    done
    # libxl starts its helper by this path.
    mkdir -p "$root/usr/lib/xen-4.17/bin"
    ln -s /usr/sbin/libxl-save-helper "$root/usr/lib/xen-4.17/bin/libxl-save-helper"
    for link in "${XENSTORE_LINKS[@]}"; do ln -s xenstore "$root/usr/sbin/xenstore-$link"; done
    # glibc loads this one by name when a thread ends.
    cp -L "$ROOTFS/lib/x86_64-linux-gnu/libgcc_s.so.1" "$root/lib/x86_64-linux-gnu/"
    cp -L "$ROOTFS/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" "$root/lib64/"
    modules_add "$root" "${DOM0_MODULES[@]}"
    cp "$HERE/dom0/init" "$root/init"
    cp "$HERE/dom0/xenhost.sh" "$root/lib/xenhost.sh"
    cp "$HERE/dom0/block" "$root/etc/xen/scripts/block"
    chmod 755 "$root/init" "$root/etc/xen/scripts/block"
    mkdir -p "$root/usr/lib/xenhost"
    gcc -std=gnu11 -O2 -Wall -Wextra -Werror -shared -fPIC "$HERE/dom0/xl-node.c" -o "$root/usr/lib/xenhost/xl-node.so" \
        -L"$ROOTFS/usr/lib/x86_64-linux-gnu" -l:libxenlight.so.4.17 ||
        die $EXIT_MISSING "cannot compile dom0/xl-node.c"
    archive_pack "$root" "$DOM0_BASE"
    rm -rf "$work"
}

initramfs_prepare() {
    require cpio cpio
    mkdir -p "$BUILT"
    boot_images_build
    guest_initramfs_build
    dom0_initramfs_build
}
