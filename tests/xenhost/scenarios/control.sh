# shellcheck shell=sh
# The control: guests under load and sixty calls of dom0's tools, and nothing is moved. Whatever fails here is the test host's fault.
# Passes only if no command failed, no tool crashed, every guest beats and no guest found a wrong byte.
guests_up 300 || fail "guests did not come up"
i=0
while [ $i -lt 60 ]; do
    case $((i % 5)) in
    0) run xl list >/dev/null ;;
    1) run xl info -n >/dev/null ;;
    2) run xl vcpu-list >/dev/null ;;
    3) run xl list -l >/dev/null ;;
    4) run xenstore-ls >/dev/null ;;
    esac
    i=$((i + 1))
done
guests_ok 90 || fail "a guest is not well"
for name in $(guests); do log "$name: $(guest_beat "$name")"; done
failed=$(cat $STATE/failed_commands 2>/dev/null)
[ -z "$failed" ] || fail "a command failed: $failed"
crashes=$(dmesg | grep -E "$CRASH_PATTERN")
[ -z "$crashes" ] || fail "a tool crashed: $crashes"
