# shellcheck shell=sh
# Our own PV kernel under real Xen: every guest whose name begins with fg runs its checks beside a stock guest, prints one line and
# powers off. The guests fgplant* have a mistake planted and must not pass: that is how this scenario shows that it would notice.
# fglinger* stand still for a while with memory full; `frameshift fsck --pause` then looks at their p2m and page tables from dom0.
# Environment: GUEST_LIMIT_S (300), for one kernel's checks.
. /usr/lib/drill/lib.sh
: >$RESULTS/verdict.txt

limit=${GUEST_LIMIT_S:-300}
name='' id=''

# What Xen's console says of a domain, one line each.
complaints() { xl dmesg | grep -aE "d$1v[0-9]|[Dd]omain $1[^0-9]|mm\.c:.*d$1[^0-9]"; }
# What the kernel printed.
said() { tr -d '\r' <"$(guest_log_file "$1")" 2>/dev/null; }
result_lines() { said "$1" | grep -cE '^frameshift-guest: (PASS|FAIL|FAULT)'; }
# ended NAME: its domain is gone (powered off), or stands as crashed.
ended() { ! guest_alive "$1" || crashed "$1"; }
crashed() { xl list "$1" 2>/dev/null | awk 'NR == 2 { exit !($5 ~ /c/) }'; }

wait_ended() {
    local start
    start=$(cut -d . -f 1 /proc/uptime)
    while ! ended "$1"; do
        [ $(($(cut -d . -f 1 /proc/uptime) - start)) -lt "$limit" ] ||
            { xl list >>$STATE/dom0.log; fail "$1 still runs after $limit s; it said last: $(said "$1" | tail -n 1)"; }
        sleep 0.5
    done
    # The console daemon may be a moment behind.
    sleep 1
}

# passed NAME MIB: exactly one line, PASS, of all the memory it was given; it powered off; Xen has nothing to say.
passed() {
    local line words
    line=$(said "$1" | grep '^frameshift-guest: PASS ')
    [ "$(result_lines "$1")" = 1 ] && [ -n "$line" ] || { log "$1: no single PASS: $(said "$1" | tail -n 3)"; return 1; }
    case $line in *" pages=$(($2 * 256)) "*) ;; *) log "$1: not all of its $2 MiB: $line"; return 1 ;; esac
    ! guest_alive "$1" || { log "$1: printed PASS, but did not power off"; return 1; }
    words=$(complaints "$3")
    [ -z "$words" ] || { log "$1: Xen complains: $words"; return 1; }
}

memory_of() { sed -n 's/^memory = //p' "$GUESTS/$1.cfg"; }

for name in $(guests); do
    case $name in fg*) continue ;; esac
    guest_create "$name" || fail "$name did not start"
    guest_wait "$name" 240 || fail "$name does not beat"
done
for name in $(guests); do
    case $name in fg*) ;; *) continue ;; esac
    guest_create "$name" || fail "$name did not start"
    id=$(guest_domid "$name")
    eval "id_$name=$id"
done
stage kernels_started

for name in $(guests); do
    case $name in fglinger*) ;; *) continue ;; esac
    until said "$name" | grep -q '^frameshift-guest: lingering'; do
        ! ended "$name" || fail "$name ended before it lingered: $(said "$name" | tail -n 1)"
        sleep 0.5
    done
    fs 0 fsck --pause
    ! ended "$name" || fail "$name was gone before fsck had looked at it: let it linger longer"
done
stage looked_at

for name in $(guests); do
    eval "id=\${id_$name:-}"
    case $name in
    fgplantsilent*)
        wait_ended "$name"
        ! passed "$name" "$(memory_of "$name")" "$id" || fail "$name said nothing, and that passed"
        [ "$(result_lines "$name")" = 0 ] || fail "$name was to be silent: $(said "$name" | tail -n 1)"
        ;;
    fgplanttrap*)
        wait_ended "$name"
        ! passed "$name" "$(memory_of "$name")" "$id" || fail "$name has a planted fault, and that passed"
        crashed "$name" || fail "$name did not shut down as crashed"
        said "$name" | grep -q '^frameshift-guest: FAULT vector=14 .*cr2=0xdead000$' || fail "$name did not tell its fault: $(said "$name" | tail -n 3)"
        said "$name" | grep -q '^  rax=0x.* rbx=0x' || fail "$name did not print its registers"
        ;;
    fgplantstack*)
        wait_ended "$name"
        ! passed "$name" "$(memory_of "$name")" "$id" || fail "$name ran out of stack, and that passed"
        [ -n "$(complaints "$id")" ] || fail "Xen crashed $name and this test does not see what it said"
        ;;
    fgplant*)
        wait_ended "$name"
        ! passed "$name" "$(memory_of "$name")" "$id" || fail "$name has a planted mistake, and that passed"
        said "$name" | grep -q '^frameshift-guest: FAIL ' || fail "$name did not print FAIL: $(said "$name" | tail -n 3)"
        ;;
    fg*)
        wait_ended "$name"
        passed "$name" "$(memory_of "$name")" "$id" || fail "$name did not pass"
        log "$name: $(said "$name" | grep '^frameshift-guest: PASS ')"
        said "$name" | grep '^frameshift-guest: PASS ' >>$RESULTS/verdict.txt
        ;;
    esac
done
for name in $(guests); do
    case $name in fgplant*) ! guest_alive "$name" || run xl destroy "$name" ;; fg*) ;; *) guest_ok "$name" 120 || fail "$name is not well beside our kernels" ;; esac
done
