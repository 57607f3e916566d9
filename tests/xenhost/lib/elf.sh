# shellcheck shell=bash
# Owns: which shared libraries a program put into dom0 needs, and where they come from.
# Invariants:
#   E1  a program's libraries are found in the unpacked packages first, on this machine second: dom0 has one libc, the packages'.
#   E2  a library that is found nowhere is an error here, not a surprise in dom0.

readonly LIBRARY_FOLDERS=(lib/x86_64-linux-gnu usr/lib/x86_64-linux-gnu)

elf_is() { [[ $(head -c 4 -- "$1" | od -An -tx1 | tr -d ' \n') == 7f454c46 ]]; }

elf_needed() { readelf -d -- "$1" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

# elf_find_library SONAME PROGRAM: prints a path; the loader's own answer for PROGRAM is the last resort.
elf_find_library() {
    local soname=$1 program=$2 folder
    for folder in "${LIBRARY_FOLDERS[@]}"; do
        [[ -e $ROOTFS/$folder/$soname ]] && { echo "$ROOTFS/$folder/$soname"; return; }
    done
    ldd -- "$program" 2>/dev/null | awk -v so="$soname" '$1 == so && $3 ~ /^\// { print $3; found = 1; exit } END { exit !found }'
}

# elf_add_libraries ROOT PROGRAM: copies every library that PROGRAM needs, and theirs, into ROOT/lib/x86_64-linux-gnu.
elf_add_libraries() {
    local root=$1 program=$2 soname path
    for soname in $(elf_needed "$program"); do
        [[ $soname == ld-linux-* || -e $root/lib/x86_64-linux-gnu/$soname ]] && continue
        path=$(elf_find_library "$soname" "$program") ||
            die $EXIT_MISSING "$program needs $soname, which is neither in the packages nor on this machine"
        mkdir -p "$root/lib/x86_64-linux-gnu"
        cp -L -- "$path" "$root/lib/x86_64-linux-gnu/$soname"
        elf_add_libraries "$root" "$path"
    done
}
