#!/bin/bash
# The documents say what the program does: options, exit codes, reasons, JSON members; in both directions where that can be seen.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
MAN=doc/man/frameshift.1

# ---- options: help, man page and completion name the same ones ----
{
    "$FAKE" --help
    for verb in topology status evacuate online shrink grow meminfo fsck recover drill version; do "$FAKE" "$verb" --help; done
} >"$WORK/help"
grep -oE -- '^  (    |-[a-z], )--[a-z-]+' "$WORK/help" | grep -oE -- '--[a-z-]+' | sort -u >"$WORK/options"
check "the help names options" test "$(wc -l <"$WORK/options")" -ge 16
sed 's/\\-/-/g' "$MAN" >"$WORK/man"
while read -r option; do
    check "$option is in the man page" grep -qE -- "^\.B[RI]* .*$option" "$WORK/man"
    check "$option is in the completion" grep -qE -- "[ ']${option}[ ']" tools/frameshift.bash-completion
done <"$WORK/options"
while read -r option; do
    check "$option of the man page exists" grep -qxF -- "$option" "$WORK/options"
done < <(sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' "$WORK/man" | grep -A1 '^\.TP' | grep -oE -- '--[a-z-]+' | sort -u)
while read -r option; do
    check "$option of the completion exists" grep -qxF -- "$option" "$WORK/options"
done < <(grep -oE -- "[ ']--[a-z][a-z-]+" tools/frameshift.bash-completion | tr -d " '" | sort -u)

# ---- exit codes and status names ----
while IFS=' ' read -r name code; do
    check "$name is in the man page under $code" bash -c "sed -n '/^\\.B $code\$/,/^\\.TP/p' '$WORK/man' | grep -q '($name)'"
done < <(sed -n 's/^ *X(\([A-Z_]*\), *\([0-9]*\), *".*/\1 \2/p' include/frameshift/status.h)
check "all statuses were read from the header" test "$(grep -cE '^ *X\([A-Z_]+, *[0-9]+, *"' include/frameshift/status.h)" -ge 20

# ---- reasons ----
while read -r reason; do
    [[ $reason == none ]] || check "reason $reason is in the man page" bash -c "sed -n '/^\\.SH REASONS/,/^\\.SH FILES/p' '$WORK/man' | grep -qE '[ ,]$reason( |\$)'"
done < <(sed -n '/FS_REASON_LIST/,/^enum/s/^ *X([A-Z0-9_]*, *"\([a-z0-9-]*\)".*/\1/p' include/frameshift/status.h)

# ---- JSON members, both ways ----
for arguments in 'evacuate NODE1 --make-room' 'evacuate NODE1 --dry-run' topology status fsck recover 'online NODE1 --grow-back' 'shrink pv1 --to 128M' 'grow pv1 --to 192M' 'meminfo pv1 --set extfrag_threshold=300' version drill 'online NODE9'; do
    # shellcheck disable=SC2086
    FAKE_HV=corrupt,killed "$FAKE" $arguments --json 2>/dev/null
done >"$WORK/lines"
FAKE_HV=refuse "$FAKE" evacuate NODE1 --json >>"$WORK/lines" 2>/dev/null
FAKE_HV=flood "$FAKE" evacuate NODE1 --json 2>/dev/null | { sleep 1; cat; } | grep -F '"dropped"' >>"$WORK/lines"
# The names inside args and phases are data: each event's, each mover's.
sed -E 's/"args":\{[^}]*\}/"args":0/g; s/"phases":\{(("[^"]*":\{[^}]*\},?)*)\}/"phases":0,"ns":0,"count":0/g' "$WORK/lines" |
    grep -oE '"[a-z0-9_]+":' | tr -d '":' | sort -u >"$WORK/members"
check "members were found" test "$(wc -l <"$WORK/members")" -ge 100
while read -r member; do
    [[ $member == type ]] || check "member $member is in doc/JSON.md" grep -qF "\`$member\`" doc/JSON.md
done <"$WORK/members"
# shellcheck disable=SC2016  # the quotes of Markdown
while read -r member; do
    check "member $member of doc/JSON.md exists" grep -qxF "$member" "$WORK/members"
done < <(grep -E '^\| `' doc/JSON.md | cut -d'|' -f2 | grep -oE '`[a-z0-9_]+`' | tr -d '`' | sort -u)
finish
