# shellcheck shell=sh
# Our own PV kernel as a guest that works and moves its own pages (serve=), beside a stock guest, on one node:
# both evacuated; the tool killed (kill -9) while coop1 moves its pages, `recover`; evacuated from where it is then; shrunk and grown; saved
# and restored; shut down: it verifies all that it has and passes.
# Guests named plant* have a mistake planted and must not pass. A stock guest that claims to move its pages costs nobody but itself.
# Owns: what is true of such a guest. Environment: COOP_SAVE (1: with xl save and restore).
. /usr/lib/drill/lib.sh
: >$RESULTS/verdict.txt

said() { tr -d '\r' <"$(guest_log_file "$1")" 2>/dev/null; }
# coop_field FIELD: of the last COOP line of coop1.
coop_field() { said coop1 | grep '^COOP .* end$' | tail -n 1 | tr ' ' '\n' | sed -n "s/^$1=//p"; }
key() { xenstore-read "/local/domain/$(guest_domid "$1")/data/frameshift/$2" 2>/dev/null; }
claim() { xenstore-write "/local/domain/$(guest_domid pv1)/data/frameshift/$1" "$2" || fail "cannot write for pv1"; }
# domain_of FILE NAME: that guest's part of the report, one line.
domain_of() { grep '"type":"report"' "$1" | tail -n 1 | sed 's/.*"domains":\[//' | tr '{' '\n' | grep "^\"name\":\"$2\",\"domid\"" | head -n 1; }
field_of() { domain_of "$1" "$2" | tr ',' '\n' | sed -n "s/^\"$3\"://p" | tr -d '"'; }
# coop_moved FILE LEAST: coop1 moved LEAST frames itself, all with contents were compared, and what stays has one of three reasons.
coop_moved() {
    local moved reasons
    moved=$(field_of "$1" coop1 moved)
    [ "$(field_of "$1" coop1 mover)" = coop ] || fail "coop1 was moved by $(field_of "$1" coop1 mover)"
    [ "${moved:-0}" -ge "$2" ] || fail "coop1 moved ${moved:-no} frames, not $2: $1"
    [ "$(field_of "$1" coop1 suspends)" = 0 ] || fail "coop1 was suspended"
    [ "$(field_of "$1" coop1 verified)" = true ] || fail "not every frame of coop1 was compared: $1"
    [ "$(field_of "$1" coop1 mismatches)" = 0 ] || fail "frames of coop1 differ: $1"
    reasons=$(grep '"type":"report"' "$1" | sed 's/.*"blocked_by":\[//; s/\],"blockers".*//' | tr '{' '\n' | grep '"name":"coop1"' |
        grep -vE '"reason":"(xenstore-ring|console-ring|foreign-reference)"')
    [ -z "$reasons" ] || fail "frames of coop1 stay for another reason: $reasons"
    echo "evacuated from $3: coop1 moved $moved, $(field_of "$1" coop1 blocked) stay; largest gap so far $(($(guest_max_gap coop1) / 1000000)) ms" >>$RESULTS/verdict.txt
}
free_mib() { xl info | sed -n 's/^free_memory *: *//p'; }

guests_up 300 || fail "the guests did not come up"
[ "$(key coop1 version)" = 1 ] && [ -n "$(key coop1 control)" ] || fail "coop1 does not say in xenstore that it moves its pages"

# A claim that is no number: moved by suspend. A page that is none of abi.h: its frames stay, nobody else's.
claim version 1x
claim control 5
fs "0 1" evacuate NODE1 --dry-run --json=$RESULTS/plan.jsonl
grep -q '"name":"pv1",.*"mover":"pv"' $RESULTS/plan.jsonl || fail "pv1 says nonsense and is not moved by suspend"
claim version 1
fs 1 evacuate NODE1 --verify "--json=$RESULTS/first.jsonl"
[ "$(field_of $RESULTS/first.jsonl pv1 moved)" = 0 ] || fail "pv1 has no page of abi.h and was moved by it"
grep -q 'domain [0-9]* *: its shared page is no good\|shared page is no good' $RESULTS/first.jsonl || fail "the report does not say what is wrong with pv1"
xenstore-rm "/local/domain/$(guest_domid pv1)/data/frameshift"
coop_moved $RESULTS/first.jsonl 22000 NODE1
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
[ "$(xl list coop1 | awk 'NR == 2 { print $3 }')" -eq 96 ] || fail "coop1 has $(xl list coop1 | awk 'NR == 2 { print $3 }') MiB after recover, not 96"
stage killed

fs 1 evacuate "NODE$from" --verify "--json=$RESULTS/second.jsonl"
coop_moved $RESULTS/second.jsonl 12000 "NODE$from"
drill_well
fs 0 online "NODE$from"
stage second

if [ "${COOP_SAVE:-0}" = 1 ]; then
    run xl save coop1 /run/coop1.save && run xl restore /run/coop1.save || fail "coop1 was not saved and restored"
    guest_ok coop1 120 || fail "coop1 is not well after restore"
    [ "$(coop_field suspends)" = 1 ] || fail "coop1 does not know that it was suspended"
    [ "$(key coop1 version)" = 1 ] || fail "coop1 does not publish again after restore"
    fs 0 fsck --pause
    stage restored
fi

[ "$(coop_field failed)" -lt 4000 ] || fail "too many pages were refused: $(coop_field failed)"
xl shutdown coop1 >>$STATE/dom0.log 2>&1 || fail "coop1 cannot be shut down"
waited=0
while guest_alive coop1; do
    waited=$((waited + 1))
    [ $waited -lt 120 ] || fail "coop1 does not power off: $(said coop1 | tail -n 1)"
    sleep 0.5
done
sleep 1
[ "$(said coop1 | grep -cE '^frameshift-guest: (PASS|FAIL|FAULT)')" = 1 ] || fail "coop1 printed no single line of result"
said coop1 | grep '^frameshift-guest: PASS .* wrong=0 ' >>$RESULTS/verdict.txt || fail "coop1 did not pass: $(said coop1 | tail -n 3)"
guest_ok pv1 120 || fail "pv1 is not well beside it"

# What would be noticed.
[ "$(guest_field plantbyte wrong_bytes)" -gt 0 ] || fail "plantbyte has a wrong byte that its tasks do not find"
said plantbyte | grep -q '^WRONG ' || fail "plantbyte does not say what is wrong"
for name in plantbyte plantframe; do
    said $name | grep -q '^frameshift-guest: FAIL ' || fail "$name did not fail: $(said $name | tail -n 2)"
    ! said $name | grep -q '^frameshift-guest: PASS' || fail "$name has a mistake planted and passes"
done
xl dmesg | grep -aE "mm\.c:.*Error|Bad type" >$RESULTS/complaints.txt
cat $RESULTS/verdict.txt >>$STATE/dom0.log
