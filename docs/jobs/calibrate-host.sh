#!/usr/bin/env bash
# Calibrates the host that it runs on and puts the profile into a folder that a rack shares.
#
#   calibrate-host.sh FOLDER [OPTION OF sevsim calibrate]...
#
# FOLDER gets HOST-DATE.toml, HOST-DATE.probe.json, and HOST-DATE.log with what was said, each as a whole file or not at all; a profile
# that an interruption cut short says so in its third line (complete = false). The second of two
# calibrations is kept as HOST-DATE.again.toml, and how far they agree goes into the log.
# SEVSIM names the program (default: sevsim). Exit codes are those of sevsim calibrate: 6 says that this host cannot.
set -euo pipefail

if [ $# -lt 1 ] || [ ! -d "$1" ]; then
    echo "usage: calibrate-host.sh FOLDER [OPTION]...   (FOLDER must exist)" >&2
    exit 2
fi
folder=$1
shift
sevsim=${SEVSIM:-sevsim}
name=$(uname -n)-$(date -u +%Y%m%dT%H%M%SZ)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
code=0
# Whoever stops the job means the calibration, which keeps what it has; this script then delivers that, and begins no other.
trap '[ "$code" != 0 ] || code=75' INT TERM

# Moved in one step, so that nobody collects half a file. Written under a name that nobody can have taken before.
deliver() {
    local part
    part=$(mktemp -- "$folder/.$2.XXXXXXXX")
    cp -- "$1" "$part"
    chmod "$(printf %o $((0666 & ~$(umask))))" "$part"
    mv -T -- "$part" "$folder/$2"
}

# Into the log, as long as nothing failed and nobody stopped the job.
step() {
    [ "$code" = 0 ] || return 0
    "$sevsim" "$@" >>"$work/log" 2>&1 || code=$?
}
# The same of what is no failure of the job: a noisy host.
remark() {
    [ "$code" = 0 ] || return 0
    "$sevsim" "$@" >>"$work/log" 2>&1 || true
}
step probe
step calibrate --dry-run "$@"
step calibrate "$@" --out "$work/first.toml"
step calibrate "$@" --out "$work/again.toml"
remark validate "$work/first.toml" --against "$work/again.toml"
remark validate "$work/first.toml"

"$sevsim" probe --format json >"$work/probe.json" || true
deliver "$work/probe.json" "$name.probe.json"
deliver "$work/log" "$name.log"
# One that an interruption cut short is worth keeping.
if [ -s "$work/first.toml" ]; then
    deliver "$work/first.toml" "$name.toml"
fi
if [ -s "$work/again.toml" ]; then
    deliver "$work/again.toml" "$name.again.toml"
fi
exit "$code"
