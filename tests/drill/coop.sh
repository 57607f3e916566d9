# shellcheck shell=sh
# Our own PV kernel as a guest that works and moves its own pages (serve=), beside a stock guest, on one node:
# its numbers read and set; shrunk and grown; both evacuated; the tool killed (kill -9) while coop1 moves its pages, `recover`; evacuated from where it
# is then; shrunk and grown once more, whole pieces of machine again; saved and restored; shut down: it verifies all that it has and passes.
# Guests named plant* have a mistake planted and must not pass; plantclaim names a wrong control page, which costs nobody but itself.
# Owns: what is true of such a guest. Environment: COOP_SAVE (1: with xl save and restore, and an evacuation with --evict).
. /usr/lib/drill/lib.sh
: >$RESULTS/verdict.txt

said() { tr -d '\r' <"$(guest_log_file "$1")" 2>/dev/null; }
# coop_field FIELD: of the last COOP line of coop1.
coop_field() { said coop1 | grep '^COOP .* end$' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"; }
key() { xenstore-read "/local/domain/$(guest_domid "$1")/data/frameshift/$2" 2>/dev/null; }
claim() { xenstore-write "/local/domain/$(guest_domid plantclaim)/data/frameshift/$1" "$2" || fail "cannot write for plantclaim"; }
# report_of FILE: its report, a line for each object; the list of all frames that stay may be long, and sed is slow with long lines.
report_of() { grep '"type":"report"' "$1" | tail -n 1 | tr '{' '\n' | grep -v '^"mfn":' >$STATE/report; }
# field_of NAME FIELD: of a guest in the last report_of.
field_of() { grep "^\"name\":\"$1\",\"domid\"" $STATE/report | tr ',' '\n' | sed -n "s/^\"$2\"://p" | tr -d '"' | head -n 1; }
us_of() { echo $(($(field_of coop1 "$1_pause_ns") / 1000)); }
# coop_moved FILE LEAST: coop1 moved LEAST frames itself, all with contents were compared, and what stays has one of three reasons.
coop_moved() {
    local moved reasons
    report_of "$1"
    moved=$(field_of coop1 moved)
    [ "$(field_of coop1 mover)" = coop ] || fail "coop1 was moved by $(field_of coop1 mover)"
    [ "${moved:-0}" -ge "$2" ] || fail "coop1 moved ${moved:-no} frames, not $2: $1"
    [ "$(field_of coop1 suspends)" = 0 ] || fail "coop1 was suspended"
    [ "$(field_of coop1 verified)" = true ] || fail "not every frame of coop1 was compared: $1"
    [ "$(field_of coop1 mismatches)" = 0 ] || fail "frames of coop1 differ: $1"
    reasons=$(grep '^"domain":.*"name":"coop1".*"reason":' $STATE/report | grep -vE '"reason":"(xenstore-ring|console-ring|foreign-reference)"')
    [ -z "$reasons" ] || fail "frames of coop1 stay for another reason: $reasons"
    grep -q '^"domain":.*"name":"coop1".*"reason":"console-ring"' $STATE/report || [ "$3" != NODE1 ] || fail "the report does not name the console ring"
    echo "evacuated from $3: coop1 moved $moved, $(field_of coop1 blocked) stay; $(field_of coop1 pauses) stops, p50 $(us_of p50) p99 $(us_of p99) longest" \
        "$(us_of max) us; blocks in one piece: $(field_of coop1 superpages_before), then $(field_of coop1 superpages_after); largest gap so far $(($(guest_max_gap coop1) / 1000000)) ms" >>$RESULTS/verdict.txt
}
# resized WHAT LEAST: coop1 shrinks by 20 MiB and grows again, LEAST of 10 blocks at least in whole pieces of machine; Xen's own counts say so.
resized() {
    local free_before gone extents given taken
    free_before=$(free_mib) given=$(coop_field extents_given) taken=$(coop_field extents_taken)
    fs 0 shrink coop1 --to 44M "--json=$RESULTS/shrink-$1.jsonl"
    [ "$(mem_of coop1)" -eq 44 ] || fail "coop1 has $(mem_of coop1) MiB, not 44"
    gone=$(($(free_mib) - free_before))
    [ $gone -ge 19 ] && [ $gone -le 21 ] || fail "Xen has $gone MiB more after 20 were given back"
    guest_ok coop1 120 || fail "coop1 is not well after shrink"
    [ "$(coop_field given)" = 5120 ] || fail "coop1 knows of $(coop_field given) pages that it gave, not 5120"
    given=$(($(coop_field extents_given) - given))
    [ $given -ge "$2" ] || fail "only $given of 10 blocks went as one piece of machine ($1)"
    extents=$(sed -n 's/.*"extents":\([0-9]*\).*/\1/p' "$RESULTS/shrink-$1.jsonl" | tail -n 1)
    [ "$extents" = $given ] || fail "the report counts $extents extents, the guest $given"
    fs 0 fsck --pause coop1
    fs 0 grow coop1 --to 64M "--json=$RESULTS/grow-$1.jsonl"
    [ "$(mem_of coop1)" -eq 64 ] || fail "coop1 has $(mem_of coop1) MiB after grow, not 64"
    gone=$(($(free_mib) - free_before))
    [ $gone -ge -1 ] && [ $gone -le 1 ] || fail "Xen has $gone MiB more than before shrink and grow"
    guest_ok coop1 120 || fail "coop1 is not well after grow"
    [ "$(coop_field given)" = 0 ] || fail "coop1 still misses $(coop_field given) pages"
    echo "shrunk by 20 MiB and grown ($1): $given whole extents given, $(($(coop_field extents_taken) - taken)) taken" >>$RESULTS/verdict.txt
}
mem_of() { xl list "$1" | awk 'NR == 2 { print $3 }'; }
free_mib() { xl info | sed -n 's/^free_memory *: *//p'; }

guests_up 300 || fail "the guests did not come up"
[ "$(key coop1 version)" = 1 ] && [ -n "$(key coop1 control)" ] || fail "coop1 does not say in xenstore that it moves its pages"

# What would be noticed.
for name in plantbyte plantframe; do
    waited=0
    until said $name | grep -qE '^frameshift-guest: (PASS|FAIL|FAULT)'; do      # a wrong frame under a page with pointers in it can end in a fault
        waited=$((waited + 1))
        [ $waited -lt 600 ] || fail "$name does not end: $(said $name | tail -n 1)"
        sleep 0.5
    done
    said $name | grep -qE '^frameshift-guest: (FAIL|FAULT) ' || fail "$name has a mistake planted and passes"
    xl destroy $name
done
[ "$(guest_field plantbyte wrong_bytes)" -gt 0 ] || fail "plantbyte has a wrong byte that its tasks do not find"
said plantbyte | grep -q '^WRONG ' || fail "plantbyte does not say what is wrong"
stage planted

# What its kernel knows of its memory, and a setting of it.
fs 0 meminfo coop1
grep -q '^buddyinfo$' "$FS_OUT" || fail "meminfo shows no free lists"
fs 0 meminfo coop1 --set compaction_proactiveness=30
grep -q '^coop1: compaction_proactiveness 20 -> 30$' "$FS_OUT" || fail "meminfo did not set what it was told: $(head -n 1 "$FS_OUT")"

# Memory goes back to Xen in whole pieces of machine, and comes again; a beat goes on.
resized fresh 9
stage resized

# A claim that is no number: moved by suspend. A page that is none of abi.h: its frames stay, nobody else's.
waited=0
until [ "$(key plantclaim version)" = 1 ]; do
    waited=$((waited + 1))
    [ $waited -lt 240 ] || fail "plantclaim says nothing in xenstore"
    sleep 0.5
done
claim version 1x
fs "0 1" evacuate NODE1 --dry-run --json=$RESULTS/plan.jsonl
tr '{' '\n' <$RESULTS/plan.jsonl | grep -q '^"name":"plantclaim".*"mover":"pv"' || fail "plantclaim says nonsense and is not moved by suspend"
claim version 1
claim control 5
fs 1 evacuate NODE1 --verify "--json=$RESULTS/first.jsonl"
coop_moved $RESULTS/first.jsonl 15000 NODE1
[ "$(field_of plantclaim moved)" = 0 ] || fail "plantclaim has no page of abi.h where it says and was moved by it"
[ "$(field_of pv1 moved)" -gt 24000 ] && [ "$(field_of pv1 suspends)" -ge 1 ] || fail "pv1 moved $(field_of pv1 moved) frames beside it"
grep -q 'its shared page is no good' $STATE/report || fail "the report does not say what is wrong with plantclaim"
guest_alive plantclaim && xl destroy plantclaim
drill_well
fs 0 online NODE1
stage first

# Killed in the middle: whatever was half done is done or given back.
from=$(node_of coop1)
[ "$from" != 1 ] || fail "coop1 is still on node 1"
rm -f /run/events
frameshift evacuate "NODE$from" --verify --json=/run/events >$RESULTS/killed.txt 2>&1 &
tool=$!
until grep -q '"event":"swap"' /run/events 2>/dev/null; do
    kill -0 $tool || { cp /run/events $RESULTS/killed.jsonl; fail "the tool ended before it was killed"; }
    sleep 0.05
done
kill -9 $tool
wait $tool
cp /run/events $RESULTS/killed.jsonl
fs 7 evacuate "NODE$from"
fs 0 recover
drill_well
[ "$(xl list coop1 | awk 'NR == 2 { print $3 }')" -eq 64 ] || fail "coop1 has $(xl list coop1 | awk 'NR == 2 { print $3 }') MiB after recover, not 64"
stage killed

fs 1 evacuate "NODE$from" --verify "--json=$RESULTS/second.jsonl"
coop_moved $RESULTS/second.jsonl 3000 "NODE$from"
drill_well
fs 0 online "NODE$from"
stage second
resized evacuated 8
stage resized_again

if [ "${COOP_SAVE:-0}" = 1 ]; then
    run xl save coop1 /run/coop1.save && run xl restore /run/coop1.save || fail "coop1 was not saved and restored"
    guest_ok coop1 120 || fail "coop1 is not well after restore"
    [ "$(coop_field suspends)" = 1 ] || fail "coop1 does not know that it was suspended"
    [ "$(key coop1 version)" = 1 ] || fail "coop1 does not publish again after restore"
    fs 0 fsck --pause
    stage restored
    from=$(node_of coop1)
    fs "0 1" evacuate "NODE$from" --evict --verify "--json=$RESULTS/evict.jsonl"
    report_of $RESULTS/evict.jsonl
    [ "$(field_of coop1 mover)" = coop ] && [ "$(field_of coop1 evicted_to)" = "$(guest_domid coop1)" ] || fail "coop1 was not moved and then evicted"
    ! grep -q '^"domain":.*"name":"coop1"' $STATE/report || fail "frames of coop1 stay although it was evicted"
    guest_ok coop1 240 || fail "coop1 is not well after --evict"
    drill_well
    fs 0 online "NODE$from"
    stage evicted
fi

[ "$(coop_field failed)" -lt 4000 ] || fail "too many pages were refused: $(coop_field failed)"
xl shutdown coop1 >>$STATE/dom0.log 2>&1 || fail "coop1 cannot be shut down"
waited=0
while guest_alive coop1; do
    waited=$((waited + 1))
    [ $waited -lt 480 ] || fail "coop1 does not power off: $(said coop1 | tail -n 1)"
    sleep 0.5
done
sleep 1
[ "$(said coop1 | grep -cE '^frameshift-guest: (PASS|FAIL|FAULT)')" = 1 ] || fail "coop1 printed no single line of result"
said coop1 | grep '^frameshift-guest: PASS .* wrong=0 ' >>$RESULTS/verdict.txt || fail "coop1 did not pass: $(said coop1 | tail -n 3)"
guest_ok pv1 120 || fail "pv1 is not well beside it"

cat $RESULTS/verdict.txt >>$STATE/dom0.log
