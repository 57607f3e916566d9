# shellcheck shell=sh
# Shared by the drills that run in dom0 (sourced through --file; the functions of xenhost.sh are there already).
# Owns: calling frameshift, and what a guest must be after it.
# Invariants:
#   R1  every call of frameshift leaves its output in the results, numbered.
#   R2  a drill passes only if no wrong byte, no lost vector state, no fault of the tables: drill_well says so.

drill_calls=0

# fs EXPECTED-STATUSES ARGUMENT...: runs frameshift; any other exit status ends the scenario. FS_STATUS is the status.
fs() {
    local expected=$1
    shift
    drill_calls=$((drill_calls + 1))
    frameshift "$@" >"$RESULTS/fs-$drill_calls.txt" 2>&1
    FS_STATUS=$?
    FS_OUT=$RESULTS/fs-$drill_calls.txt
    log "frameshift $*: $FS_STATUS (fs-$drill_calls.txt)"
    case " $expected " in
    *" $FS_STATUS "*) ;;
    *)
        tail -n 5 "$FS_OUT" >>$STATE/dom0.log
        fail "frameshift $* ended with $FS_STATUS, not one of $expected"
        ;;
    esac
}

# drill_well [SECONDS]: every guest beats on and found nothing wrong; p2m, M2P and tables agree.
drill_well() {
    guests_ok "${1:-120}" || fail "a guest is not well"
    fs 0 fsck --pause
}

# number FILE KEY: the first number after "KEY": in a JSON line.
number() { sed -n "s/.*\"$2\":\([0-9][0-9]*\).*/\1/p" "$1" | head -n 1; }

# node_of NAME: the node that holds most of a guest.
node_of() {
    local node best=0 on most=-1
    for node in $(seq 0 $((${NODE_COUNT:-4} - 1))); do
        on=$(guest_node_pages "$1" "$node" | cut -d ' ' -f 1)
        [ "$on" -gt "$most" ] && { most=$on best=$node; }
    done
    echo "$best"
}

# stays REPORT: "name blocked limit" of each guest that was asked to move. Somebody else holds 4 + 2 x vCPUs frames of a PV guest at most
# (rings, vcpu_info, event pages, one of Xen's), 3 + 2 x vCPUs of a PVH guest.
stays() {
    grep -oE '"name":"[^"]*","domid":[0-9]+,"uuid":"[^"]*","kind":"[^"]*","mover":"[^"]*","vcpus":[0-9]+|"moved":[0-9]+,"blocked":[0-9]+' "$1" |
        awk -F '[:,"]+' '/"name"/ { for (i = 1; i < NF; i++) { if ($i == "name") n = $(i + 1); if ($i == "mover") m = $(i + 1); if ($i == "vcpus") v = $(i + 1) } }
            /"moved"/ { for (i = 1; i < NF; i++) if ($i == "blocked") b = $(i + 1); if (m == "pv") print n, b, 4 + 2 * v; if (m == "hap") print n, b, 3 + 2 * v }'
}

# few_stay FILE: the report that FILE ends with says that each guest left, but for the frames that somebody else holds.
few_stay() {
    local name blocked limit
    grep '"type":"report"' "$1" | tail -n 1 >"$1.report"
    stays "$1.report" >"$1.stays"
    [ -s "$1.stays" ] || fail "$1 tells of no guest"
    while read -r name blocked limit; do
        [ "$blocked" -le "$limit" ] || fail "$name: $blocked frames stay, $limit may"
    done <"$1.stays"
}
