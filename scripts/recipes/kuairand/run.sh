#!/usr/bin/env bash
# Many feedback signals of a short-video feed, summed with weights (KuaiRand-Pure, April and May 2022).
#
#   scripts/recipes/kuairand/run.sh [DIR] [options]
#
# DIR (else $LONGHAUL_KUAIRAND) holds log_standard_20220425_20220508.csv, the later of the standard logs, and
# user_features_pure.csv, plain or compressed.
#   --out DIR               where results go (runs/kuairand)
#   --algorithms "A B"      what to train ("il il_cvae resact")
#   --seeds "1 2"           a run of each for every algorithm, pooled in the evaluation (the job's seed alone)
#   --set KEY=VALUE         overrides a key of job.yaml; may be repeated
# LONGHAUL names the program where it is neither in build/release nor on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_KUAIRAND:-} out=runs/kuairand
recipe_arguments "$@"
[[ -n $data ]] || recipe_fail "no data: give the directory of the log as an argument or as LONGHAUL_KUAIRAND"
recipe_has "$data/log_standard_20220425_20220508.csv" && recipe_has "$data/user_features_pure.csv" ||
    recipe_fail "$data: log_standard_20220425_20220508.csv and user_features_pure.csv are not both there"

recipe_run
