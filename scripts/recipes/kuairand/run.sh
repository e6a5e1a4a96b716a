#!/usr/bin/env bash
# Many feedback signals of a short-video feed (KuaiRand-Pure), summed with weights.
#
#   scripts/recipes/kuairand/run.sh DIR [--out DIR] [--set KEY=VALUE]...
#
# DIR (or $LONGHAUL_KUAIRAND) holds log_standard_20220425_20220508.csv (its later weeks) and
# user_features_pure.csv, plain or compressed. Results go to runs/kuairand (--out).
# LONGHAUL names the program where it is not in build/ or on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_KUAIRAND:-} out=runs/kuairand
recipe_arguments "$@"
[[ -n $data ]] || recipe_fail "no data: give the directory of the log as an argument or as LONGHAUL_KUAIRAND"

recipe_run "$data" "$(recipe_file "$data/log_standard_20220425_20220508.csv")"
