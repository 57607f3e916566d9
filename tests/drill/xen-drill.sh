#!/bin/bash
# make xen-drill: the main job on real Xen. Two PV guests (1 and 2 vCPUs) and a PVH guest, all under load on one DIMM,
# are evacuated while they run.
# usage: xen-drill.sh BUILD [xenhost option]...
# Results: BUILD/xen-drill/: report.json, plan.txt, report.txt, consoles of Xen, dom0 and of every guest, summary.json.
# Exit: 0 the drill holds; 1 it does not (the reason is the last line); others as tests/xenhost/xenhost.
set -uo pipefail

BUILD=${1:?usage: xen-drill.sh BUILD [xenhost option]...}
shift
cd "$(dirname "$(readlink -f "$0")")/../.." || exit 1
OUT=$BUILD/xen-drill
# Checked all the time, but not at full speed: three guests and dom0 share one emulated processor thread (see tests/xenhost/README.md).
LOAD=${DRILL_LOAD:-"rest=300 sample=4000"}
rm -rf "$OUT"
mkdir -p "$OUT"

tests/xenhost/xenhost --out "$OUT" --scenario tests/drill/drill.sh --time-limit 900 \
    --guest "pv1,pv,256,1,node=1,cmdline=$LOAD" --guest "pv2,pv,256,2,node=1,cmdline=$LOAD" --guest "pvh1,pvh,256,2,node=1,cmdline=$LOAD" \
    --file "$BUILD/frameshift:/usr/bin/frameshift" "$@"
status=$?

for part in plan.txt report.txt verdict.txt; do
    [[ -f $OUT/$part ]] && { echo; cat "$OUT/$part"; }
done
echo
if ((status == 0)); then
    echo "drill: passed; results in $OUT"
else
    echo "drill: FAILED with $status; see $OUT/dom0.log and $OUT/xen.log"
fi
exit $status
