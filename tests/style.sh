#!/bin/bash
# The rules of doc/STYLE.md that a few lines of awk can see; prints each violation, exits 1 if there is one.
#   S1 every .c opens with a comment.            S2 no .c above 800 lines.
#   S3 no line above 160 columns, no tab, no blank at a line's end, one newline at a file's end.
#   S4 no function above 120 lines (70 is the aim; what is longer than that has been looked at by someone).
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
mapfile -t files < <(find include hv tools guest tests -name '*.[ch]' 2>/dev/null | sort)
awk '
    function say(words) { printf "%s:%d: %s\n", FILENAME, FNR, words; bad++ }
    FNR == 1 && FILENAME ~ /\.c$/ && !/^\/\*/ { say("S1: no opening comment") }
    FNR == 801 && FILENAME ~ /\.c$/ { say("S2: more than 800 lines") }
    length($0) > 160 { say("S3: " length($0) " columns") }
    /\t/ { say("S3: a tab") }
    /[ \r]$/ { say("S3: a blank at the end") }
    /^\{/ { from = FNR }
    /^\}/ { if (from && FNR - from > 120) { say("S4: a function of " FNR - from " lines") } from = 0 }
    END { exit bad > 0 }
' "${files[@]}"
status=$?
echo "${#files[@]} files"
exit $status
