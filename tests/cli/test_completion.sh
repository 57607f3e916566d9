#!/bin/bash
# Bash completion: verbs, options of the verb, DIMMs as the program names them, domains of xl.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

# The program and xl as the completion finds them.
mkdir "$WORK/bin"
printf '#!/bin/sh\nexec "%s" "$@"\n' "$(readlink -f "$FAKE")" >"$WORK/bin/frameshift"
printf '#!/bin/sh\nprintf "Name ID Mem VCPUs State Time\\nDomain-0 0 1 1 r 1\\npv1 1 256 1 b 1\\nbad;name 2 1 1 b 1\\n"\n' >"$WORK/bin/xl"
chmod +x "$WORK/bin/frameshift" "$WORK/bin/xl"
PATH=$WORK/bin:$PATH
# shellcheck source=tools/frameshift.bash-completion
. tools/frameshift.bash-completion
check "it is bound" test "$(complete -p frameshift)" = "complete -F _frameshift frameshift"

# offers WORDS...: completes the last word; the offers, sorted, in $got.
offers() {
    COMP_LINE="frameshift $*"
    COMP_POINT=${#COMP_LINE}
    COMPREPLY=()
    _frameshift
    got=$(printf '%s\n' "${COMPREPLY[@]}" | sort | tr '\n' ' ')
}
# shellcheck disable=SC2317  # check calls it
is() { [[ $got == "$1 " ]] || { echo "got '$got'"; false; }; }
got=''

offers ''
check "all verbs" is "drill evacuate fsck grow meminfo online recover shrink status topology version"
offers ev
check "one verb" is "evacuate"
offers --json st
check "a verb behind an option" is "status"
offers --map x st
check "an option's value is no verb" is "status"
offers evacuate ''
check "DIMMs: an interleaved one by its set" is "DIMM_B2 set:0"
offers online D
check "online takes them too" is "DIMM_B2"
offers evacuate DIMM_B2 ''
check "one target is enough" is ""
offers evacuate --ev
check "options of evacuate" is "--evict --evict-dir"
offers evacuate DIMM_B2 --ma
check "options behind the target" is "--machine --make-room --map --max-blackout --max-pause"
offers status --ev
check "none of evacuate's for status" is ""
offers drill --se
check "options of drill" is "--seed --seeds"
offers drill --max
check "and those that evacuate has too" is "--max-blackout --max-pause"
offers drill --ver
check "but not all of them" is "--version"
offers drill --seed 3 --f
check "a number is no verb" is "--fail-call"
offers drill --dimms 4
check "sizes to choose from" is "4x1024 4x16 4x256 4x64"
offers fsck --p
check "options of fsck" is "--pause"
offers fsck ''
check "domains; a name that is no plain word is not offered" is "Domain-0 pv1"
offers evacuate --exclude p
check "domains to exclude" is "pv1"
offers status --machine ''
check "machines" is "embedded xen"
COMP_WORDBREAKS=$' \t\n:'
offers evacuate set:
check "a colon is not repeated" is "0"
offers evacuate s
check "before the colon" is "set:0"
COMP_LINE='frameshift evacuate NODE1 --json' COMP_POINT=12
_frameshift
got="${COMPREPLY[*]} "
check "the cursor counts, not the end of the line" is "evacuate"
finish
