# shellcheck shell=sh
# Owns: what a scenario may call in dom0. Sourced by init and by the scenario (busybox ash).
# Invariants:
#   S1  a guest is judged by its console log only: what a guest says of itself is the evidence that comes back.
#   S2  every function that can fail says what and about which guest, and returns non-zero; fail ends the scenario.
#   S3  a command started by `run` is counted, and counted again if it fails: summary.json tells of both.
# shellcheck disable=SC3043  # local: busybox ash has it

RESULTS=/results
STATE=/run/xenhost
CONSOLES=/var/log/xen/console
GUESTS=/etc/xen/guests
# What dom0's kernel says of a tool that died of a signal.
CRASH_PATTERN='segfault at|general protection|traps: .* trap|invalid opcode'

uptime_s() { cut -d ' ' -f 1 /proc/uptime; }

# log MESSAGE...: into dom0.log and onto the serial console, where it is seen even if dom0 dies next.
log() {
    echo "[$(uptime_s)] $*" >>$STATE/dom0.log
    echo "xenhost: $*" >/dev/console
}

fail() {
    log "FAIL: $*"
    exit 1
}

# stage NAME: a point in time that summary.json reports.
stage() { echo "$1 $(uptime_s)" >>$RESULTS/stages; echo "xenhost: stage $1" >/dev/console; }

# result FILE [NAME]: copies a file (or folder) into the results.
result() { cp -r "$1" "$RESULTS/${2:-$(basename "$1")}" || { log "result: cannot copy $1"; return 1; }; }

# run COMMAND...: S3. The output goes to dom0.log.
run() {
    local status
    echo run >>$STATE/commands
    "$@"
    status=$?
    if [ $status -ne 0 ]; then
        echo "$status $*" >>$STATE/failed_commands
        log "command failed with $status: $*"
    fi
    return $status
}

guests() { (cd $GUESTS && ls -- *.cfg 2>/dev/null | sed 's/\.cfg$//'); }
guest_conf() { sed -n "s/^#xenhost $2=//p" "$GUESTS/$1.cfg"; }
guest_log_file() { echo "$CONSOLES/guest-$1.log"; }
guest_domid() { xl domid "$1" 2>/dev/null; }
guest_alive() { xl list "$1" >/dev/null 2>&1; }

# guest_create NAME [XL-OPTION...]: starts it, on its node if it has one, and checks where its memory landed.
guest_create() {
    local name=$1 node pages on_node
    shift
    [ -f "$GUESTS/$name.cfg" ] || { log "guest_create: no guest $name"; return 1; }
    guest_disk_setup "$name" || return 1
    node=$(guest_conf "$name" node)
    if [ -n "$node" ]; then
        XENHOST_NODE=$node LD_PRELOAD=/usr/lib/xenhost/xl-node.so run xl create -q "$GUESTS/$name.cfg" "$@" || return 1
        set -- $(guest_node_pages "$name" "$node")
        on_node=${1:-0} pages=${2:-0}
        log "guest $name: $on_node of $pages pages on node $node"
        [ "$pages" -gt 0 ] && [ $((on_node * 100)) -ge $((pages * 99)) ] ||
            { log "guest_create: $name is not on node $node"; return 1; }
    else
        run xl create -q "$GUESTS/$name.cfg" "$@" || return 1
    fi
}

# guest_node_pages NAME NODE: "pages-on-node pages-in-all", from Xen's own count (debug key u).
guest_node_pages() {
    local domid
    domid=$(guest_domid "$1") || return 1
    xl debug-keys u
    # The key is handled asynchronously by Xen, on its console ring.
    sleep 0.2
    xl dmesg | awk -v d="$domid" -v n="$2" '
        /Domain [0-9]+ \(total: [0-9]+\)/ { match($0, /Domain [0-9]+/); now = substr($0, RSTART + 7, RLENGTH - 7)
            if (now == d) { match($0, /total: [0-9]+/); total = substr($0, RSTART + 7, RLENGTH - 7); on = 0 } }
        now == d && $0 ~ "Node " n ": [0-9]+" { on = $NF }
        END { print on + 0, total + 0 }'
}

# A disk is a file in dom0's memory behind a loop device: real blkback, real grants, no emulated disk in the way.
guest_disk_setup() {
    local name=$1 disk loop
    disk=$(guest_conf "$name" disk)
    [ -n "$disk" ] || return 0
    loop=$(guest_conf "$name" loop)
    mkdir -p /run/disks
    [ -f "/run/disks/$name" ] || truncate -s "${disk}M" "/run/disks/$name"
    losetup "/dev/loop$loop" >/dev/null 2>&1 || run losetup "/dev/loop$loop" "/run/disks/$name"
}

guest_beat() { grep -a '^BEAT .* end' "$(guest_log_file "$1")" 2>/dev/null | tail -n 1 | tr -d '\r'; }
# guest_field NAME FIELD: of the last beat.
guest_field() { guest_beat "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }
guest_seq() { local s; s=$(guest_field "$1" seq); echo "${s:-0}"; }

# guest_wait NAME SECONDS [SEQ]: until the guest's load has printed a beat later than SEQ (0: its first one).
guest_wait() {
    local name=$1 limit=$2 after=${3:-0} start
    start=$(cut -d . -f 1 /proc/uptime)
    while [ "$(guest_seq "$name")" -le "$after" ]; do
        if [ $(($(cut -d . -f 1 /proc/uptime) - start)) -ge "$limit" ]; then
            log "guest_wait: $name: no beat after seq $after in $limit s; last: $(tail -n 1 "$(guest_log_file "$name")" 2>/dev/null)"
            return 1
        fi
        sleep 0.2
    done
}

# guest_balloon NAME MIB [SECONDS]: asks for less (or more) memory and waits until the guest has it.
guest_balloon() {
    local name=$1 mib=$2 limit=${3:-60} start now
    run xl mem-set "$name" "$mib" || return 1
    start=$(cut -d . -f 1 /proc/uptime)
    # xl list counts the pages that Xen keeps for the guest too: up to 1 MiB above the target.
    while now=$(xl list "$name" | awk 'NR == 2 { print $3 }') && [ "$now" -gt $((mib + 1)) ]; do
        if [ $(($(cut -d . -f 1 /proc/uptime) - start)) -ge "$limit" ]; then
            log "guest_balloon: $name has $now MiB after $limit s, not $mib"
            return 1
        fi
        sleep 0.5
    done
}

# guests_up [SECONDS]: creates all guests, waits for the first beat of each that has a load.
guests_up() {
    local name
    for name in $(guests); do guest_create "$name" || return 1; done
    for name in $(guests); do
        [ "$(guest_conf "$name" load)" = none ] || guest_wait "$name" "${1:-120}" || return 1
    done
    stage guests_up
}

# guest_ok NAME [SECONDS]: it beats now, found no wrong byte, lost no vector state, and the kernel had no trouble.
guest_ok() {
    local name=$1 wrong fpu file
    file=$(guest_log_file "$name")
    guest_wait "$name" "${2:-30}" "$(guest_seq "$name")" || return 1
    wrong=$(guest_field "$name" wrong_bytes)
    fpu=$(guest_field "$name" fpu_bad)
    [ "$wrong" = 0 ] || { log "guest_ok: $name: wrong_bytes=$wrong"; grep -a '^WRONG' "$file" | head -n 5 >>$STATE/dom0.log; return 1; }
    [ "${fpu:-0}" = 0 ] || { log "guest_ok: $name: fpu_bad=$fpu"; return 1; }
    if grep -aE '^(DEAD|FATAL) |^frameshift-guest: (FAIL|FAULT)|Kernel panic|BUG:|Oops|segfault|general protection' "$file" >$STATE/trouble.$name; then
        log "guest_ok: $name: $(head -n 1 $STATE/trouble.$name)"
        return 1
    fi
}

guests_ok() {
    local name bad=0
    for name in $(guests); do
        [ "$(guest_conf "$name" load)" = none ] || guest_ok "$name" "$@" || bad=1
    done
    return $bad
}

# guest_max_gap NAME [SEQ]: the largest gap in ns that the guest saw in its beats after SEQ.
guest_max_gap() {
    tr -d '\r' <"$(guest_log_file "$1")" | awk -v after="${2:-0}" '
        /^BEAT .* end/ { seq = gap = 0
            for (i = 2; i <= NF; i++) { if ($i ~ /^seq=/) seq = substr($i, 5); if ($i ~ /^gap_ns=/) gap = substr($i, 8) }
            if (seq + 0 > after + 0 && gap + 0 > max + 0) max = gap }
        END { printf "%.0f\n", max }'
}

# ship_start, ship_stop: D2. One process appends what is new; a log that shrinks starts over.
ship_once() {
    local file name size sent
    for file in $CONSOLES/*.log $STATE/dom0.log; do
        [ -f "$file" ] || continue
        name=${file##*/}
        size=$(stat -c %s "$file")
        sent=0
        [ -f "$STATE/shipped.$name" ] && read -r sent <"$STATE/shipped.$name"
        [ "$size" -gt "$sent" ] || continue
        tail -c +$((sent + 1)) "$file" | head -c $((size - sent)) >>"$RESULTS/$name"
        echo "$size" >"$STATE/shipped.$name"
    done
}
ship_start() {
    (while :; do ship_once; sleep 1; done) &
    echo $! >$STATE/shipper.pid
}
ship_stop() {
    kill "$(cat $STATE/shipper.pid)" 2>/dev/null
    wait "$(cat $STATE/shipper.pid)" 2>/dev/null
    # The killed copy may have ended between appending and noting it: start over with whole files.
    rm -f $STATE/shipped.*
    for file in $CONSOLES/*.log $STATE/dom0.log; do [ -f "$file" ] && cp "$file" $RESULTS/; done
}

# Counts for summary.json; a crashed tool is one that dom0's kernel reported.
scenario_account() {
    {
        echo "commands $(cat $STATE/commands 2>/dev/null | wc -l)"
        echo "failed_commands $(cat $STATE/failed_commands 2>/dev/null | wc -l)"
        echo "tool_crashes $(dmesg | grep -cE "$CRASH_PATTERN")"
    } >$RESULTS/account
}
