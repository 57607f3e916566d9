# shellcheck shell=bash
# Owns: the SMBIOS tables (types 17, 19, 20) by which dom0 learns where each DIMM lies.
# Invariants:
#   B1  each node is one DIMM; its machine ranges are the ones QEMU's PC board really gives it, PCI hole included.
#   B2  tables of the user's own (--smbios) replace all of ours.
# QEMU itself writes one DIMM for every 16 GiB, which says nothing; a table from a file replaces its own of the same type.

SMBIOS_FILES=()
readonly HOLE_START_MIB=3072 HOLE_FULL_MIB=3584 HOLE_END_MIB=4096

le() { # le VALUE BYTES: little endian, as printf escapes
    local value=$1 bytes=$2 out=
    while ((bytes-- > 0)); do
        out+=$(printf '\\x%02x' $((value & 255)))
        value=$((value >> 8))
    done
    printf %s "$out"
}

# dimm_ranges FIRST_MIB SIZE_MIB LOW_MIB: machine ranges (start end, MiB, half-open) of a node that starts at a RAM offset.
dimm_ranges() {
    local first=$1 end=$(($1 + $2)) low=$3
    if ((first < low)); then echo "$first $((end < low ? end : low))"; fi
    if ((end > low)); then echo "$(((first > low ? first : low) - low + HOLE_END_MIB)) $((end - low + HOLE_END_MIB))"; fi
}

smbios_write() { # smbios_write FILE ESCAPES
    printf '%b' "$2" >"$1"
    SMBIOS_FILES+=("$1")
}

smbios_tables() {
    local work=$1 node total=0 low first=0 mem range start end handle count=0 body
    ((${#SMBIOS_FILES[@]} == 0)) || return 0
    for mem in "${NODES[@]}"; do total=$((total + mem)); done
    # hw/i386/pc_piix.c: RAM that does not fit below 3.5 GiB is split at 3 GiB.
    low=$((total >= HOLE_FULL_MIB ? HOLE_START_MIB : total))
    for node in "${!NODES[@]}"; do
        mem=${NODES[node]}
        body=$(le 17 1)$(le 40 1)$(le $((0x1100 + node)) 2)$(le 0x1000 2)$(le 0xfffe 2)$(le 64 2)$(le 64 2)
        body+=$(le $((mem < 32767 ? mem : 32767)) 2)$(le 9 1)$(le 0 1)'\x01\x02'$(le 7 1)$(le 0x80 2)$(le 2400 2)
        body+='\x00\x00\x00\x00\x01'$(le $((mem < 32767 ? 0 : mem)) 4)$(le 2400 2)$(le 1200 2)$(le 1200 2)$(le 1200 2)
        smbios_write "$work/smbios-17-$node" "${body}DIMM$node\\x00NODE$node\\x00\\x00"
        while read -r range; do
            start=${range% *} end=${range#* }
            handle=$((0x1300 + count))
            body=$(le 19 1)$(le 31 1)$(le $handle 2)$(le $((start * 1024)) 4)$(le $((end * 1024 - 1)) 4)$(le 0x1000 2)'\x01'
            body+=$(le 0 8)$(le 0 8)
            smbios_write "$work/smbios-19-$count" "$body\\x00\\x00"
            body=$(le 20 1)$(le 35 1)$(le $((0x1400 + count)) 2)$(le $((start * 1024)) 4)$(le $((end * 1024 - 1)) 4)
            body+=$(le $((0x1100 + node)) 2)$(le $handle 2)'\x01\x00\x00'$(le 0 8)$(le 0 8)
            smbios_write "$work/smbios-20-$count" "$body\\x00\\x00"
            count=$((count + 1))
        done < <(dimm_ranges $first "$mem" $low)
        first=$((first + mem))
    done
}
