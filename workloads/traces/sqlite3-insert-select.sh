#!/bin/sh
# Captures sqlite3-insert-select.lackey.zst: 600,000 data accesses of sqlite3, half of them inserting, half querying.
# Needs valgrind, sqlite3, stdbuf, awk, gzip and zstd; some minutes, and 500 MB for full.gz in the current directory.
set -eu
sql=$(dirname "$0")/sqlite3-insert-select.sql
half=300000

# The trace and sqlite3's own (unbuffered) output share one stream, so that the line "loaded" marks the place.
[ -e full.gz ] ||
    stdbuf -o0 valgrind --tool=lackey --trace-mem=yes --log-fd=1 sqlite3 :memory: < "$sql" | gzip -1 > full.gz
mark=$(zcat full.gz | awk '/^ [LSM] / { n++ } /^loaded/ { print n; exit }')

# `half` accesses before the mark and after it, each with its instructions; sqlite3's output is taken out.
zcat full.gz | awk -v from=$((mark - half)) -v to=$((mark + half)) '
    { sub(/^[a-z]+I  /, "I  ") }
    /^ [LSM] / { n++; if (n > from) print; if (n == to) exit }
    /^I  / { if (n >= from) print }
' | zstd -19 -f -o sqlite3-insert-select.lackey.zst
