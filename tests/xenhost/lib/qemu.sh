# shellcheck shell=bash
# Owns: the emulated machine: its nodes, its firmware tables, its one QEMU process, and the watchdog over that.
# Invariants:
#   Q1  exactly one process is ever signalled: the QEMU that this script started, by its pid.
#   Q2  the wait ends: QEMU ends by itself, or at the time limit, or when the console shows that Xen or dom0 is dead, or when dom0's
#       first process has not begun by the boot limit.
#   Q4  a machine that is ended by us leaves evidence first: registers of each processor, and what Xen's debug keys tell.
# Every node is a memory backend of its own: that is the DIMM.

QEMU=${FRAMESHIFT_QEMU:-qemu-system-x86_64}
# The README tells why these features are taken away.
readonly DEFAULT_CPU="max,-smap,-rdtscp,-xsave,-avx,-avx2"

# helper_vmrun stores the vector of an injected interrupt as a pending exception, and delivers it as well. If this processor is asked to
# leave its loop before something clears that, the guest gets the interrupt a second time, now in kernel mode with the user's GS, and
# dies of it. The instructions around the store, as gcc 12 emits them; the store itself is the six bytes at +11.
readonly VMRUN_STORE='\x41\x0f\xb6\xf4\x44\x89\xab....\x89\xb3..\xff\xff\xc7\x83....\x00\x00\x00\x00\x48\xc7\x83....\xff\xff\xff\xff'

QEMU_ARGS=()
QEMU_PID=

# qemu_patch: a copy of QEMU in the cache in which that one store is a no-op. Where it is not found (another QEMU), QEMU stays as it is.
# Only PVH guests need it; the copy finds modules and firmware through links beside it.
qemu_patch() {
    local original offset folder copy
    original=$(readlink -f "$(command -v "$QEMU")")
    folder=$BUILT/qemu-$(hash_of "$original" "$HERE/lib/qemu.sh")
    copy=$folder/usr/bin/${original##*/}
    if [[ ! -e $folder ]]; then
        mkdir -p "$folder.new/usr/bin"
        offset=$(LC_ALL=C grep -obUaP "$VMRUN_STORE" "$original" | cut -d : -f 1)
        if [[ $offset =~ ^[0-9]+$ ]]; then
            cp "$original" "$folder.new/usr/bin/"
            printf '\x66\x0f\x1f\x44\x00\x00' |
                dd of="$folder.new/usr/bin/${original##*/}" bs=1 seek=$((offset + 11)) conv=notrunc status=none
            ln -s /usr/lib "$folder.new/usr/lib"
            ln -s /usr/share "$folder.new/usr/share"
        fi
        mv "$folder.new" "$folder"
    fi
    if [[ -x $copy ]]; then QEMU=$copy QEMU_PATCHED=1; else log "note: this QEMU is not known; PVH guests may die in it (README.md)"; fi
}

# accel_choose: what `auto` means (README.md has the counts).
accel_choose() {
    [[ $ACCEL == auto ]] || return 0
    ACCEL=tcg
    if kvm_boots; then
        ACCEL=kvm
    elif ((PVH_GUESTS > 0)); then
        ACCEL=tcg-single
    fi
    [[ $ACCEL != kvm || -n $CPU_ASKED ]] || CPU=host
}

# kvm_boots: whether a probe boot under KVM reached dom0. The answer is kept for this kernel and this QEMU.
kvm_boots() {
    [[ -w /dev/kvm ]] || return 1
    local answer probe status
    answer=$CACHE/kvm-$( (uname -rv; "$QEMU" --version; grep -m 1 'model name' /proc/cpuinfo) | sha256sum | cut -c1-16)
    if [[ ! -f $answer ]]; then
        log "probing KVM"
        probe=$(mktemp -d "${TMPDIR:-/tmp}/xenhost-kvm.XXXXXX")
        echo 'xl info >/dev/null' >"$probe/scenario"
        if "$HERE/xenhost" --quiet --accel kvm --out "$probe/out" --scenario "$probe/scenario" --time-limit 40 >/dev/null 2>&1; then
            status=yes
        else
            status=no
        fi
        rm -rf "$probe"
        echo $status >"$answer"
    fi
    [[ $(<"$answer") == yes ]]
}

# node_cpus NODE: vCPUs go round the nodes, so that as many nodes as possible have one.
node_cpus() {
    local node=$1 cpu list=
    for ((cpu = node; cpu < VCPUS; cpu += ${#NODES[@]})); do list+=",cpus=$cpu"; done
    echo "$list"
}

qemu_arguments() {
    local node total=0 mem
    for mem in "${NODES[@]}"; do total=$((total + mem)); done
    QEMU_ARGS=(-display none -no-reboot -nodefaults -name frameshift-xenhost -cpu "$CPU" -smp "$VCPUS" -m "$total")
    case $ACCEL in
        tcg) QEMU_ARGS+=(-accel "tcg,thread=multi") ;;
        tcg-single) QEMU_ARGS+=(-accel "tcg,thread=single") ;;
        kvm) QEMU_ARGS+=(-accel kvm) ;;
    esac
    # Touched before the start where the host has plenty: else the first use of each emulated frame is a page fault of the host's, and
    # a move to a node that was never used takes several times as long as the next one.
    local available prealloc=
    available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    ((available > 3 * total)) && prealloc=,prealloc=on,prealloc-threads=2
    for node in "${!NODES[@]}"; do
        QEMU_ARGS+=(-object "memory-backend-ram,id=dimm$node,size=${NODES[node]}M$prealloc"
            -numa "node,nodeid=$node,memdev=dimm$node$(node_cpus "$node")")
    done
    smbios_tables "$WORK"
    local table
    for table in "${SMBIOS_FILES[@]}"; do QEMU_ARGS+=(-smbios "file=${table//,/,,}"); done
    # Results come back as files of the host while dom0 runs: nothing to unpack, nothing lost when the machine is killed.
    QEMU_ARGS+=(-fsdev "local,id=results,path=${OUT//,/,,},security_model=none"
        -device "virtio-9p-pci,fsdev=results,mount_tag=results")
    # Guest images and the user's files go in by the same road and not by dom0's initramfs: Xen leaves that one where it found it, at the
    # top of memory, so every MiB of it would be 256 dom0 frames in the last DIMM.
    QEMU_ARGS+=(-fsdev "local,id=input,path=${WORK//,/,,}/root,security_model=none,readonly=on"
        -device "virtio-9p-pci,fsdev=input,mount_tag=input")
    # The console's output is QEMU's own, its input a pipe of ours, for Xen's debug keys; so is a monitor beside the user's.
    QEMU_ARGS+=(-chardev "stdio,id=console,signal=off" -serial chardev:console
        -chardev "pipe,id=evidence,path=${WORK//,/,,}/evidence" -mon "chardev=evidence,mode=readline")
    [[ $WANT_MONITOR == 0 ]] || QEMU_ARGS+=(-monitor "unix:${OUT//,/,,}/monitor.sock,server,nowait")
    [[ $WANT_GDB == 0 ]] || QEMU_ARGS+=(-gdb "unix:${OUT//,/,,}/gdb.sock,server,nowait")
    QEMU_ARGS+=(-kernel "$XEN_IMAGE" -append "$(xen_command_line)"
        -initrd "$STOCK_KERNEL console=hvc0 earlyprintk=xen quiet loglevel=4 panic=1 rdinit=/init,$DOM0_BASE")
}

xen_command_line() {
    local line="console=com1 com1=115200,8n1 loglvl=info guest_loglvl=warning"
    line+=" dom0_mem=${DOM0_MEM}M,max:${DOM0_MEM}M dom0_max_vcpus=$DOM0_VCPUS dom0_nodes=$DOM0_NODE,relaxed"
    echo "$line${XEN_CMDLINE:+ $XEN_CMDLINE}"
}

# What a dead machine says. A panic ends QEMU by its own reboot (-no-reboot); a stall does not.
readonly PANIC_PATTERN='Panic on CPU|Xen BUG at|Xen call trace|FATAL PAGE FAULT|DOUBLE FAULT|Kernel panic - not syncing|FATAL TRAP'
readonly HANG_PATTERN='rcu: INFO: rcu.* detected stalls|rcu: INFO: rcu.*self-detected stall|Watchdog timer detects|soft lockup'

# qemu_slot: waits for one of BOOTS places; the lock is held until this script ends.
#   Q3  at most BOOTS machines run at once, whoever started them: on a host that emulates more than it has processors for, times and
#       time limits mean nothing, and that is what makes a test host flaky.
qemu_slot() {
    local slot told=0
    mkdir -p "$CACHE/locks"
    while :; do
        for ((slot = 1; slot <= ${FRAMESHIFT_BOOTS:-2}; slot++)); do
            exec 8>"$CACHE/locks/boot-$slot"
            flock -n 8 && return 0
            exec 8>&-
        done
        ((told)) || log "waiting: ${FRAMESHIFT_BOOTS:-2} machines run already (FRAMESHIFT_BOOTS)"
        told=1
        sleep 1
    done
}

# Seconds until dom0's first process must have begun. 7 to 9 on an idle host, 80 seen at a load of 13.
readonly BOOT_LIMIT_S=${XENHOST_BOOT_LIMIT_S:-300}

# qemu_evidence (Q4): two looks at the registers tell what stands still from what is slow; then Xen speaks, if it can.
# Keys: q domains and vCPUs, 0 dom0's registers, r run queues, a timers, e event channels, i interrupts, z IO-APICs.
qemu_evidence() {
    local key
    {
        printf 'info registers -a\n'
        sleep 2
        printf 'info registers -a\ninfo lapic\ninfo pic\n'
    } >"$WORK/evidence.in"
    timeout 3 cat "$WORK/evidence.out" >"$OUT/evidence-registers.txt"
    printf '\001\001\001' >&7
    for key in q 0 r a e i z; do
        printf %s "$key" >&7
        sleep 1
    done
}

# qemu_run: starts QEMU and waits (Q2). Sets QEMU_END to: off (it ended), limit, boot, fatal.
qemu_run() {
    local deadline booted
    : >"$OUT/xen.log"
    : >"$OUT/qemu.log"
    rm -f "$WORK"/{keys,evidence.in,evidence.out} "$OUT/stages"
    mkfifo "$WORK/keys" "$WORK/evidence.in" "$WORK/evidence.out" || die $EXIT_MISSING "cannot make pipes in $WORK"
    exec 7<>"$WORK/keys"
    deadline=$((SECONDS + TIME_LIMIT)) booted=$((SECONDS + BOOT_LIMIT_S))
    "$QEMU" "${QEMU_ARGS[@]}" <&7 >"$OUT/xen.log" 2>"$OUT/qemu.log" 7>&- &
    QEMU_PID=$!
    echo "$QEMU_PID" >"$OUT/qemu.pid"
    QEMU_END=off
    local fatal_at=0
    while kill -0 "$QEMU_PID" 2>/dev/null; do
        if ((SECONDS >= deadline)) || { ((SECONDS >= booted)) && [[ ! -s $OUT/stages ]]; }; then
            QEMU_END=boot
            [[ ! -s $OUT/stages ]] || QEMU_END=limit
            qemu_evidence
            qemu_kill
            break
        fi
        # A dead machine gets a few seconds to print its trace and to end by itself.
        if ((fatal_at == 0)) && qemu_is_dead; then fatal_at=$SECONDS; fi
        if ((fatal_at > 0 && SECONDS - fatal_at > 8)); then
            QEMU_END=fatal
            qemu_kill
            break
        fi
        sleep 0.2
    done
    wait "$QEMU_PID" 2>/dev/null
    QEMU_STATUS=$?
    QEMU_PID=
    exec 7>&-
    rm -f "$OUT/qemu.pid"
}

qemu_is_dead() { grep -qaE "$PANIC_PATTERN" "$OUT/xen.log" || grep -qa 'KVM internal error' "$OUT/qemu.log"; }

qemu_kill() {
    [[ -n $QEMU_PID ]] || return 0
    kill "$QEMU_PID" 2>/dev/null
    local i
    for ((i = 0; i < 20; i++)); do
        kill -0 "$QEMU_PID" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$QEMU_PID" 2>/dev/null
}
