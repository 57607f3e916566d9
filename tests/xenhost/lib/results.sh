# shellcheck shell=bash
# Owns: the verdict on a boot and summary.json.
# Invariants:
#   V1  the exit code is 0 only if dom0 came up, the scenario ran to its end with status 0, and QEMU ended by itself.
#   V2  what cannot be known is null, never 0.

# stage_s NAME: dom0's uptime at that stage, or null.
stage_s() { awk -v s="$1" '$1 == s { t = $2 } END { print t == "" ? "null" : t }' "$OUT/stages" 2>/dev/null || echo null; }
account() { awk -v s="$1" '$1 == s { t = $2 } END { print t == "" ? "null" : t }' "$OUT/account" 2>/dev/null || echo null; }
difference() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "null" || b == "null") print "null"; else printf "%.2f\n", b - a }'; }
count_lines() { grep -caE "$1" "$OUT/xen.log" || true; }

results_judge() {
    local scenario_status=null
    [[ -f $OUT/exit_status ]] && scenario_status=$(<"$OUT/exit_status")
    PANICS=$(count_lines "$PANIC_PATTERN")
    HANGS=$(count_lines "$HANG_PATTERN")
    if [[ $QEMU_END == boot ]]; then
        REASON="dom0 did not come up in $BOOT_LIMIT_S s, twice; last on the console: $(results_last_line)"
        EXIT=$EXIT_BOOT
    elif [[ $QEMU_END == limit ]]; then
        REASON="time limit of $TIME_LIMIT s; last stage: $(tail -n 1 "$OUT/stages" 2>/dev/null || echo none); last on the console: $(results_last_line)"
        EXIT=$EXIT_BOOT
    elif [[ $QEMU_END == fatal ]]; then
        REASON="the machine is dead: $(grep -ahE "$PANIC_PATTERN|KVM internal error" "$OUT/xen.log" "$OUT/qemu.log" | head -n 1 | tr -d '\r'); last stage: $(tail -n 1 "$OUT/stages" 2>/dev/null || echo none)"
        EXIT=$EXIT_BOOT
    elif [[ $scenario_status == null ]]; then
        REASON="the machine ended before the scenario did (QEMU status $QEMU_STATUS); last on the console: $(results_last_line)"
        EXIT=$EXIT_BOOT
    elif [[ $scenario_status != 0 ]]; then
        REASON="the scenario failed with status $scenario_status: $(grep -a 'FAIL:' "$OUT/dom0.log" 2>/dev/null | tail -n 1)"
        EXIT=$EXIT_SCENARIO
    else
        REASON=ok EXIT=0
    fi
    SCENARIO_STATUS=$scenario_status
}

results_last_line() { tail -n 3 "$OUT/xen.log" 2>/dev/null | tr -d '\r' | tr '\n' '|' | cut -c1-300; [[ -s $OUT/qemu.log ]] && tail -n 1 "$OUT/qemu.log"; true; }

json_string() { local s=${1//\\/\\\\}; s=${s//\"/\\\"}; printf '"%s"' "$(printf %s "$s" | tr -d '\000-\037')"; }

results_summary() {
    local name first=1
    {
        echo '{'
        echo "  \"exit\": $EXIT, \"reason\": $(json_string "$REASON"),"
        echo "  \"scenario\": $(json_string "${SCENARIO##*/}"), \"scenario_status\": $SCENARIO_STATUS,"
        echo "  \"accel\": \"$ACCEL\", \"cpu\": $(json_string "$CPU"), \"qemu_patched\": ${QEMU_PATCHED:-0}, \"vcpus\": $VCPUS, \"nodes_mib\": [$(IFS=,; echo "${NODES[*]}")], \"seed\": $SEED,"
        echo "  \"total_s\": $(awk -v ms="$TOTAL_MS" 'BEGIN { printf "%.2f", ms / 1000 }'),"
        echo "  \"boot_s\": $(stage_s booted), \"guests_up_s\": $(difference "$(stage_s booted)" "$(stage_s guests_up)"),"
        echo "  \"scenario_s\": $(difference "$(stage_s booted)" "$(stage_s scenario_done)"),"
        echo "  \"commands\": $(account commands), \"failed_commands\": $(account failed_commands),"
        echo "  \"tool_crashes\": $(account tool_crashes), \"panics\": $PANICS, \"hangs\": $HANGS, \"boot_hangs\": $BOOT_HANGS,"
        echo -n '  "guests": ['
        for name in "${GUEST_NAMES[@]}"; do
            ((first)) || echo -n ,
            first=0
            echo -n $'\n    '"$(results_guest "$name")"
        done
        echo ' ]'
        echo '}'
    } >"$OUT/summary.json"
}

# results_guest NAME: its last beat and its largest gap as an object.
results_guest() {
    tr -d '\r' < <(cat "$OUT/guest-$1.log" 2>/dev/null) | awk -v name="$1" '
        /^BEAT .* end/ { line = $0; beats++
            for (i = 2; i <= NF; i++) if ($i ~ /^gap_ns=/ && substr($i, 8) + 0 > max + 0) max = substr($i, 8) }
        /^WRONG/ { wrong++ }
        END {
            printf "{ \"name\": \"%s\", \"beats\": %d, \"wrong_lines\": %d, \"max_gap_ns\": %s", name, beats, wrong, beats ? sprintf("%.0f", max) : "null"
            n = split(line, f, " ")
            for (i = 2; i <= n; i++) if (split(f[i], kv, "=") == 2 && kv[2] ~ /^[0-9]+$/) printf ", \"%s\": %s", kv[1], kv[2]
            print " }"
        }'
}
