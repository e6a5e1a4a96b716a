#!/usr/bin/env bash
# Return time and session length on the clicks of a news portal (Globo.com).
#
#   scripts/recipes/globo/run.sh DIR [--reward both|return_time|session_length] [--out DIR] [--set KEY=VALUE]...
#
# DIR (or $LONGHAUL_GLOBO) holds clicks.csv, plain or compressed. Results go to runs/globo (--out).
# LONGHAUL names the program where it is not in build/ or on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_GLOBO:-} out=runs/globo reward=both
recipe_arguments "$@"
[[ -n $data ]] || recipe_fail "no data: give the directory of clicks.csv as an argument or as LONGHAUL_GLOBO"

recipe_run "$data" "$(recipe_file "$data/clicks.csv")"
