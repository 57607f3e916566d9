#!/bin/bash
# Who may include whom, checked from what the compiler really opens (gcc -MM), so that no macro or indirection hides it.
# Prints one line for each violation; exits 1 if there is one.
# Rules (doc/DESIGN.md, "Layout"):
#   L1  include/         nothing of ours but include/.
#   L2  hv/*.c           include/, hv/*.h; never a backend's headers, never guest/.
#   L3  hv/xen, hv/embedded   include/, hv/backend.h, hv/range.h (sets of frames, which backend.h speaks in), hv/rig.h, their own folder.
#   L4  tools/           include/, hv/hv.h, and their own.
#       tools/drill      also guest/ and the public headers of hv/embedded: it binds the two.
#   L5  guest/lib        include/, guest/arch/arch.h (the seam), itself.
#       guest/mm         those and guest/lib, its own layer and the layers below.
#       guest/arch, guest/workload   include/ and guest/, never hv/.
#   L6  only hv/xen names libxenctrl's headers; every header compiles by itself.
# Layers of guest/mm: the table below; a file that is not in it says "Layer: Ln" in its opening comment.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1

readonly FLAGS=(-std=gnu11 -D_GNU_SOURCE -Iinclude -D__XEN_TOOLS__ -D__XEN_INTERFACE_VERSION__=0x00041100 '-DFRAMESHIFT_VERSION="0"')
declare -A MM_LAYER=(
    [status]=0 [gfp]=0 [page]=0 [pageblock]=1 [zone]=1 [buddy]=1 [pcp]=1 [page_alloc]=1
    [isolation]=2 [rmap]=2 [slab]=2 [lru]=2
    [vma]=3 [fault]=3 [swap]=3 [pagecache]=3 [migrate]=3
    [compaction]=4 [reclaim]=4 [mempolicy]=4 [hotplug]=5 [shrink]=5
    [mm_fsck]=6 [mm_dump]=6 [vmstat]=6 [alongside]=6
)
violations=0

violation() {
    printf '%s\n' "$*"
    violations=$((violations + 1))
}

# includes FILE: our own files that FILE opens, in INCLUDED, with ../ resolved; fails where the compiler does.
includes() {
    local extra=() out
    case $1 in
        guest/*) extra=(-ffreestanding -Iguest -Iguest/lib -Iguest/mm -Iguest/arch) ;;
        hv/* | tools/*) extra=(-Ihv) ;;
    esac
    INCLUDED=()
    if ! out=$(gcc "${FLAGS[@]}" "${extra[@]}" -x c -MM "$1" 2>&1); then
        violation "$1: does not preprocess by itself: $(grep -m 1 error <<<"$out")"
        return 1
    fi
    mapfile -t INCLUDED < <(tr -s ' \\\n' '\n' <<<"${out#*:}" | grep -v '^$' |
        xargs -r realpath -m --relative-to=. | grep -vxF "$1")
}

# mm_layer FILE: its layer, or nothing.
mm_layer() {
    local base=${1##*/} said
    base=${base%.*}
    said=$(head -n 40 "$1" | sed -n 's/.*Layer: L\([0-9]\).*/\1/p' | head -n 1)
    [[ -n $said ]] && { echo "$said"; return; }
    [[ -n ${MM_LAYER[$base]:-} ]] && { echo "${MM_LAYER[$base]}"; return; }
    base=${base%_priv}
    echo "${MM_LAYER[$base]:-}"
}

# allowed FILE INCLUDED: whether the table lets it.
allowed() {
    case $1 in
        include/*) [[ $2 == include/* ]] ;;
        hv/xen/* | hv/embedded/*) [[ $2 == include/* || $2 == hv/backend.h || $2 == hv/range.h || $2 == hv/rig.h || ${2%/*} == "${1%/*}" ]] ;;
        hv/*) [[ $2 == include/* || $2 == hv/*.h && $2 != hv/*/* ]] ;;
        tools/drill/*) [[ $2 == include/* || $2 == hv/hv.h || $2 == hv/backend.h || $2 == hv/embedded/core.h || $2 == hv/embedded/embedded.h ||
                          $2 == guest/* || $2 == tools/*.h ]] ;;
        tools/*) [[ $2 == include/* || $2 == hv/hv.h || $2 == tools/*.h ]] ;;
        guest/lib/*) [[ $2 == include/* || $2 == guest/lib/* || $2 == guest/arch/arch.h ]] ;;
        guest/mm/*) [[ $2 == include/* || $2 == guest/lib/* || $2 == guest/arch/arch.h ]] || mm_allowed "$1" "$2" ;;
        guest/*) [[ $2 == include/* || $2 == guest/* ]] ;;
    esac
}

mm_allowed() {
    local mine theirs
    [[ $2 == guest/mm/* ]] || return 1
    mine=$(mm_layer "$1") theirs=$(mm_layer "$2")
    [[ -n $mine && -n $theirs ]] && ((theirs <= mine))
}

check_file() {
    local file=$1 other
    if [[ $file == guest/mm/* && -z $(mm_layer "$file") ]]; then
        violation "$file: has no layer; say \"Layer: Ln\" in its opening comment"
    fi
    includes "$file" || return
    for other in "${INCLUDED[@]}"; do
        allowed "$file" "$other" || violation "$file: may not include $other"
    done
}

check_names() {
    local hit
    while IFS= read -r hit; do
        violation "$hit: only hv/xen may include libxenctrl's headers"
    done < <(find include hv tools guest -name '*.[ch]' -not -path 'hv/xen/*' -exec \
        grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"](xenctrl|xenguest|xenforeignmemory|xencall|xenstore|xentoollog|libxl)' {} + 2>/dev/null |
        cut -d: -f1,2)
    while IFS= read -r hit; do
        violation "$hit: includes a .c file"
    done < <(find include hv tools guest tests -name '*.[ch]' -exec grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]*\.c[>"]' {} + 2>/dev/null | cut -d: -f1,2)
}

files=0
while IFS= read -r file; do
    check_file "$file"
    files=$((files + 1))
done < <(find include hv tools guest -name '*.[ch]' 2>/dev/null | sort)
check_names
echo "$files files, $violations violations"
((violations == 0 && files > 0))
