#!/bin/sh
# ldt_guest.sh OUT: builds the initial ram disk of a guest whose processes use local descriptor tables (main_ldt_guest.c).
set -eu
here=$(dirname "$(readlink -f "$0")")
out=$(readlink -m "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/dev" "$(dirname "$out")"
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -mgeneral-regs-only -Wall -Wextra -Werror -static -o "$dir/init" "$here/main_ldt_guest.c"
mknod "$dir/dev/console" c 5 1
(cd "$dir" && find . | cpio --quiet -o -H newc) | gzip -1 >"$out"
