# shellcheck shell=sh
# A guest that has given memory away by its balloon, and one with a disk, stay well under load.
guests_up 300 || fail "guests did not come up"
for name in $(guests); do
    case $name in
    balloon*)
        memory=$(xl list "$name" | awk 'NR == 2 { print $3 }')
        guest_balloon "$name" $((memory * 3 / 4)) 90 || fail "$name did not balloon down"
        log "$name: $memory MiB -> $(xl list "$name" | awk 'NR == 2 { print $3 }') MiB"
        ;;
    esac
done
sleep 10
guests_ok 90 || fail "a guest is not well"
for name in $(guests); do log "$name: $(guest_beat "$name")"; done
