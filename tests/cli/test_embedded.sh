#!/bin/bash
# The real program on the embedded machine: every verb, and the arithmetic of a report that no one canned.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
TOOL=$BUILD/frameshift
[[ -x $TOOL ]] || { echo "no $TOOL; run make"; exit 1; }

on_embedded() {
    timeout -k 5 300 "$TOOL" --machine embedded --state-dir "$WORK/state" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
    code=$?
}
# number NAME: a member of the last line's top level (the first of that name; nested ones come later).
number() { tail -n 1 "$WORK/out" | grep -oE "\"$1\":[0-9]+" | head -n 1 | cut -d: -f2; }
# sum NAME: over the members of that name in an array of the last line.
sum() { tail -n 1 "$WORK/out" | sed 's/.*"domains":\[//; s/"blocked_by":.*//' | grep -oE "\"$1\":[0-9]+" | cut -d: -f2 | awk '{ n += $1 } END { print n + 0 }'; }

on_embedded version
check "version" code_is 0
on_embedded topology
check "topology names the nodes" out_has NODE1
on_embedded status
check "status" code_is 0
check "status has a map for each" test "$(grep -cE '^  NODE[0-9] +\[.{64}\]' "$WORK/out")" -ge 2
on_embedded fsck --pause
check "fsck finds no fault: $code" code_is 0
on_embedded recover
check "nothing to recover" out_has "Nothing to recover"
on_embedded evacuate NODE1 --dry-run --json --quiet
check "dry run" code_is 0
planned=$(number frames_total)

on_embedded evacuate NODE1 --verify --json
check "evacuate: some frames stay: $code" code_is 1
check "every line is an object" all_lines_are_objects
total=$(number frames_total) moved=$(number frames_moved) blocked=$(number frames_blocked) offlined=$(number frames_offlined)
check "total $total is the plan's $planned" test "$total" -eq "$planned"
check "total $total = offlined $offlined + blocked $blocked" test "$total" -eq $((offlined + blocked))
check "moved $moved is what the domains moved" test "$moved" -eq "$(sum moved)"
check "most of the guests' frames moved" test "$moved" -gt $((total * 9 / 10))
check "blocked $blocked are listed" test "$(tail -n 1 "$WORK/out" | sed 's/.*"blockers"://' | grep -o '"mfn":' | wc -l)" -eq "$blocked"
check "verified" bash -c "tail -n 1 '$WORK/out' | grep -q '\"verified\":true,\"frames_hashed\":$moved,\"mismatches\":0,\"hypercalls\"'"

on_embedded evacuate NODE1 --exclude pv1 --json
check "excluded: its frames stay for that reason" bash -c "tail -n 1 '$WORK/out' | grep -q '\"name\":\"pv1\",\"reason\":\"guest-excluded\"'"
on_embedded evacuate NODE1 --exclude nobody
check "unknown domain: 3, with the names there are: $code" code_is 3
check "unknown domain: names" err_has pv1
on_embedded evacuate mfn:ffffff00-ffffff10
check "not RAM: 3: $code" code_is 3
on_embedded evacuate DIMM_Z9
check "unknown DIMM: 3, with the names there are: $code" code_is 3
check "unknown DIMM: names" err_has NODE1
on_embedded online NODE1
check "online" code_is 0

# A guest that moves its own pages, outside of a drill: in the default machine, and in one that is described.
on_embedded evacuate NODE2 --verify --json
check "coop1's DIMM: only Xen's own frames stay: $code" code_is 1
check "coop1 was moved by itself" bash -c "tail -n 1 '$WORK/out' | grep -q '\"name\":\"coop1\".*\"mover\":\"coop\"'"
check "coop1: all of its 8192 frames moved, not $(number frames_moved)" test "$(number frames_moved)" -eq 8192
check "coop1: what stays is Xen's" test "$(tail -n 1 "$WORK/out" | grep -o '"reason":"[a-z-]*"' | sort -u)" = '"reason":"xen"'
machine() { timeout -k 5 60 "$TOOL" --machine "embedded:$1" --state-dir "$WORK/state" "${@:2}" >"$WORK/out" 2>"$WORK/err" </dev/null; code=$?; }
machine "nodes=2x64 dom0=8,0 coop=a,16,2,1 coop=b,24,1,0" fsck --pause
check "two of them: fsck finds no fault: $code" code_is 0
machine "nodes=2x64 coop=a,8,1,1" status
check "a guest that is too small is refused: 2, not $code" code_is 2
check "and how small it may be is told" err_has "16 MiB"
machine "nodes=2x64 coop=a,32,1" status
check "a word that is not understood: 2, not $code" code_is 2

# ---- meminfo: a guest's memory in its own kernel's words ----
on_embedded meminfo coop1
check "meminfo: 0, not $code" code_is 0
for words in buddyinfo pagetypeinfo unusable_index extfrag_index vmstat settings 'Node 0, zone   Normal' 'nr_free_pages ' extfrag_threshold; do
    check "meminfo: $words" out_has "$words"
done
on_embedded meminfo coop1 --json
check "meminfo --json" last_is meminfo
check "meminfo --json: the counters" out_has '{"name":"compact_run","value":'
on_embedded meminfo coop1 --set extfrag_threshold=300 --set compact_memory=1 --quiet
check "meminfo --set: 0, not $code" code_is 0
check "meminfo --set: what it was" out_has "coop1: extfrag_threshold 500 -> 300"
for refused in "meminfo coop1 --set nothing=1:9:nothing was set" "meminfo coop1 --set extfrag_threshold=2000:9:0 to 1000" \
    "meminfo coop1 --set extfrag_threshold=300 --set compact_node=7:9:nothing was set" "meminfo pv1:9:abi.h" "meminfo pvh1:9:abi.h" \
    "meminfo nobody:3:coop1" "meminfo:2:GUEST" "meminfo coop1 --set x:2:NAME=VALUE"; do
    IFS=: read -r words status text <<<"$refused"
    # shellcheck disable=SC2086
    on_embedded $words
    check "$words: $status, not $code" code_is "$status"
    check "$words: says $text" err_has "$text"
done
# Shrinking: what went is what the machine got, and nothing that is refused changes anything.
on_embedded shrink coop1 --to 24M --json
check "shrink: 0, not $code" code_is 0
check "shrink: the last line" last_is shrink
check "shrink: every line is an object" all_lines_are_objects
check "shrink: 2048 frames went" test "$(($(number frames_before) - $(number frames_after)))" -eq 2048
check "shrink: the machine has them" test "$(($(number free_after) - $(number free_before)))" -eq 2048
check "shrink: its limit follows" test "$(number limit_after)" -eq "$(number frames_after)"
check "shrink: in whole extents" test "$(number extents)" -eq 4
check "shrink: no stop" test "$(number stops)" -eq 0
check "shrink: nothing is left to remember of a machine that is gone but this" test -f "$WORK/state/shrunk"
# More pages than this process may map one by one: refused where they no longer fit, nothing is left to recover. Where it may, or where the machine
# has whole 2 MiB pieces for them, which are one mapping each, they move.
machine "nodes=2x1024 coop=a,300,1,1" evacuate NODE1
check "a guest of 76,800 pages: 1, not $code" code_is 1
if (($(</proc/sys/vm/max_map_count) < 80000)) && ! out_has "76,800 moved"; then
    check "the limit and the way out are named" err_has "sysctl -w vm.max_map_count"
else
    check "no complaint where they move" err_empty
fi
machine "nodes=2x64" recover
check "nothing is left to recover: 0, not $code" code_is 0
machine "nodes=3x512 coop=big,448,2,1" shrink big --to 65M --json --quiet
check "shrink by sections: 0, not $code" code_is 0
check "shrink by sections: 3, not $(number sections)" test "$(number sections)" -eq 3
check "shrink by sections: nothing but whole blocks" test "$(($(number blocks) * 512))" -eq "$(($(number frames_before) - $(number frames_after)))"
for refused in "shrink coop1 --to 2M:9:lives on" "grow coop1 --to 64M:9:maximum" "shrink coop1 --to 64M:3:grow" "grow coop1 --to 16M:3:shrink" \
    "shrink pv1 --to 16M:9:abi.h" "shrink pvh1 --to 16M:9:abi.h" "shrink 0 --to 16M:9:xl mem-set" "shrink nobody --to 16M:3:coop1" "shrink coop1:2:--to"; do
    IFS=: read -r words want text <<<"$refused"
    # shellcheck disable=SC2086
    on_embedded $words
    check "$words: $want, not $code" code_is "$want"
    check "$words: says \"$text\"" err_has "$text"
done
on_embedded shrink coop1 --to 24M --dry-run
check "shrink --dry-run" out_has "would give 8 MiB"
on_embedded shrink coop1 --to 24M --crash-at 3
check "shrink killed: 137, not $code" code_is 137
on_embedded shrink coop1 --to 24M
check "shrink after a kill: 7, not $code" code_is 7
check "and says what to do" err_has "frameshift recover"
on_embedded recover
check "recover: 0, not $code" code_is 0

# No room: the refusal names what guests could give; with --make-room they give it, and one report tells both.
crowded="nodes=3x64 dom0=8,0 pv=pv1,40,1,1 coop=a,48,1,0 coop=b,56,1,2"
machine "$crowded" evacuate NODE1
check "crowded: 6, not $code" code_is 6
check "crowded: who could give how much" err_has "--make-room would shrink a by"
machine "$crowded" evacuate NODE1 --make-room --dry-run
check "crowded: --make-room --dry-run: 0, not $code" code_is 0
check "crowded: how to run it" out_has "NODE1 --make-room"
machine "$crowded" evacuate NODE1 --make-room --json
check "crowded: --make-room: only what never moves stays: $code" code_is 1
check "crowded: two guests gave" test "$(tail -n 1 "$WORK/out" | sed 's/.*"made_room":\[//; s/\],"domains".*//' | grep -o '"frames_asked"' | wc -l)" -eq 2
check "crowded: pv1 moved" test "$(number frames_moved)" -gt 10000
machine "$crowded" evacuate NODE1 --make-room --exclude a
check "crowded: b alone cannot: 1 or 6, not $code" test "$code" -eq 1 -o "$code" -eq 6
machine "$crowded" online NODE1 --grow-back
check "online --grow-back: 0, not $code" code_is 0
check "online --grow-back: nobody made room" out_has "No guest has memory"

# The drill: it needs no --machine, its lines add up, and the same seed is the same run.
"$TOOL" drill --dimms 4x16 --seed 3 --json >"$WORK/out" 2>"$WORK/err"
code=$?
check "drill: 0, not $code" code_is 0
check "drill: every line is an object" all_lines_are_objects
check "drill: the last line is the drill" last_is drill
check "drill: ten steps" count_is step 10
check "drill: two evacuations" count_is report 2
check "drill: moved $(number frames_moved) is what its steps moved" test "$(number frames_moved)" -eq \
    "$(grep '"type":"step"' "$WORK/out" | grep -oE '"frames_moved":[0-9]+' | cut -d: -f2 | awk '{ n += $1 } END { print n }')"
check "drill: what is free at the end was free before" test "$(number frames_free)" -eq "$(number frames_free_before)"
same() { sed -E 's/"(step|judge|drill)_ns":[0-9]+//g' "$1"; }
"$TOOL" drill --dimms 4x16 --seed 3 --json >"$WORK/again" 2>"$WORK/err"
check "drill: the same seed is the same run, event for event" cmp -s <(same "$WORK/out") <(same "$WORK/again")
"$TOOL" drill --dimms 3x16 --guest pv=a,8,2,1 --threads --html "$WORK/page.html" >"$WORK/out" 2>"$WORK/err"
code=$?
check "drill with threads: 0, not $code" code_is 0
check "drill: a page" grep -q '>passed<' "$WORK/page.html"

# A killed run leaves its journal: nothing else may begin before the recovery.
on_embedded evacuate NODE1 --crash-at 5
check "killed: 137, not $code" code_is 137
on_embedded evacuate NODE1
check "refused until recovered: 7, not $code" code_is 7
check "and says so" err_has "frameshift recover"
on_embedded status
check "status says so too" out_has "frameshift recover"

# Two at once: the second is refused (the first is held by its reader).
rm -rf "$WORK/state"
mkfifo "$WORK/pipe"
"$TOOL" --machine embedded --state-dir "$WORK/state" evacuate NODE1 --debug >/dev/null 2>"$WORK/pipe" </dev/null &
first=$!
exec 9<"$WORK/pipe"
while read -r -u 9 line; do [[ $line == *offline-free* ]] && break; done
kill -s STOP "$first"
on_embedded evacuate NODE1
check "a second one is refused: 7, not $code" code_is 7
kill -s CONT "$first"
cat <&9 >/dev/null
wait "$first"
code=$?
check "the first one ends as ever: 1, not $code" code_is 1
finish
