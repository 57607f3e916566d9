# shellcheck shell=sh
# The control: guests under load and about sixty xl calls, and nothing is moved. Whatever fails here is the test host's fault.
guests_up 240 || fail "guests did not come up"
i=0
while [ $i -lt 60 ]; do
    case $((i % 4)) in
    0) run xl list >/dev/null ;;
    1) run xl info -n >/dev/null ;;
    2) run xl vcpu-list >/dev/null ;;
    3) run xenstore-ls >/dev/null ;;
    esac
    i=$((i + 1))
done
guests_ok 60 || fail "a guest is not well"
for name in $(guests); do log "$(guest_beat "$name")"; done
