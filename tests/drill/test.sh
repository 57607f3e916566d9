#!/bin/bash
# One test on real Xen, in short form: a boot, a scenario, a verdict.
# usage: test.sh NAME     (BUILD and TEST_OUT in the environment; tests/xenhost/tests.list names them all)
# Guests are small and check at half speed, so that a test fits into minutes of emulation; the long forms are in doc/TESTING.md.
set -uo pipefail

BUILD=${BUILD:-build}
OUT=${TEST_OUT:-$BUILD/drill-${1:?usage: test.sh NAME}}
cd "$(dirname "$(readlink -f "$0")")/../.." || exit 1
LOAD=${DRILL_LOAD:-"rest=300 sample=4000"}

# boot SCENARIO OPTION...: the tool and the drills' library are always there.
boot() {
    local scenario=$1
    shift
    tests/xenhost/xenhost --out "$OUT" --scenario "$scenario" --time-limit 1500 \
        --file "$BUILD/frameshift:/usr/bin/frameshift" --file tests/drill/lib.sh:/usr/lib/drill/lib.sh "$@"
}

case $1 in
control)
    boot tests/xenhost/scenarios/control.sh \
        --guest "pv1,pv,192,2,node=1,cmdline=$LOAD" --guest "pvh1,pvh,192,2,node=2,cmdline=$LOAD"
    ;;
backend)
    # Without the long check that free memory may be left marked (it takes minutes of emulation; the scenario's default has it).
    boot tests/xenhost/scenarios/backend.sh --file "$BUILD/conform-xen:/usr/bin/conform-xen" \
        --env "CONFORM_ONLY=${CONFORM_ONLY:-host ram tables domains frames m2p specials pause max-pages monitor oracles hap- pv- offline- evict}" \
        --guest "pv1,pv,192,2,node=1,cmdline=$LOAD" --guest "hvm1,pvh,192,2,node=2,cmdline=$LOAD"
    ;;
pv-rounds)
    boot tests/drill/rounds.sh --nodes 1024,384,384,128 --env NODE_COUNT=3 --env "ROUND_OPTIONS=--verify" \
        --guest "pv1,pv,160,1,node=1,cmdline=$LOAD" --guest "pv4,pv,160,4,node=1,cmdline=$LOAD"
    ;;
pvh-rounds)
    boot tests/drill/rounds.sh --nodes 1024,256,256,128 --env NODE_COUNT=3 --env "ROUND_OPTIONS=--verify" \
        --guest "pvh1,pvh,160,2,node=1,cmdline=$LOAD"
    ;;
pv-kill)
    boot tests/drill/kill.sh --nodes 1024,192,192,128 --env NODE_COUNT=3 --env KILL_STEP="${KILL_STEP:-3}" \
        --guest "pv1,pv,128,2,node=1,cmdline=$LOAD"
    ;;
pvh-kill)
    boot tests/drill/kill.sh --nodes 1024,192,192,128 --env NODE_COUNT=3 --env KILL_STEP="${KILL_STEP:-3}" \
        --guest "pvh1,pvh,128,1,node=1,cmdline=$LOAD"
    ;;
ldt)
    boot tests/drill/ldt.sh --nodes 1024,256,256,128 --env NODE_COUNT=3 --env LDT_TRIES="${LDT_TRIES:-6}" \
        --guest "pv1,pv,160,2,node=1,cmdline=rest=2000 sample=4000 share=20 ldt=12"
    ;;
kinds)
    boot tests/drill/kinds.sh --nodes 1024,512,512,128 --env NODE_COUNT=3 --env EVICT=1 \
        --guest "disk1,pv,160,1,node=1,load=disk,cmdline=$LOAD" --guest "balloon1,pv,192,1,node=1,cmdline=$LOAD"
    ;;
guest-kernel)
    KERNEL=load=none,kernel=$BUILD/guest/frameshift-guest.elf
    boot tests/drill/guest-kernel.sh --nodes 1024,768 --guest "pv1,pv,128,1,cmdline=$LOAD" \
        --guest "fg16,pv,16,1,$KERNEL" --guest "fg64,pv,64,1,$KERNEL,cmdline=seed=2" --guest "fglinger200,pv,200,1,$KERNEL,cmdline=linger=40" \
        --guest "fgplantbyte,pv,16,1,$KERNEL,cmdline=plant=byte" --guest "fgplanttrap,pv,16,1,$KERNEL,cmdline=plant=trap" \
        --guest "fgplantstack,pv,16,1,$KERNEL,cmdline=plant=stack" \
        --guest "fgplantsilent,pv,16,1,$KERNEL,cmdline=plant=silent"
    ;;
coop)
    KERNEL=kernel=$BUILD/guest/frameshift-guest.elf
    boot tests/drill/coop.sh --nodes 1024,320,384,128 --env NODE_COUNT=3 --env "COOP_SAVE=${COOP_SAVE:-0}" \
        --guest "coop1,pv,64,1,node=1,$KERNEL,cmdline=serve=0" --guest "pv1,pv,96,1,node=1,cmdline=$LOAD" \
        --guest "plantclaim,pv,16,1,node=1,$KERNEL,load=none,cmdline=serve=0" \
        --guest "plantbyte,pv,16,1,node=0,$KERNEL,load=none,cmdline=serve=8 plant=byte" \
        --guest "plantframe,pv,16,1,node=0,$KERNEL,load=none,cmdline=serve=8 plant=frame"
    ;;
*)
    echo "test.sh: no test \"$1\"" >&2
    exit 2
    ;;
esac
