#!/usr/bin/env bash
# Return times and session lengths on the clicks of a news portal (Globo.com, October 2017).
#
#   scripts/recipes/globo/run.sh [DIR] [options]
#
# DIR (else $LONGHAUL_GLOBO) holds clicks.csv, plain or compressed.
#   --reward NAME           both (the default): 0.7 Eq. 21 + 0.3 Eq. 22; return_time; session_length
#   --out DIR               where results go (runs/globo-NAME)
#   --algorithms "A B"      what to train ("il il_cvae resact")
#   --seeds "1 2"           a run of each for every algorithm, pooled in the evaluation (the job's seed alone)
#   --set KEY=VALUE         overrides a key of job.yaml; may be repeated
# LONGHAUL names the program where it is neither in build/release nor on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_GLOBO:-} out="" reward=both
recipe_arguments "$@"
[[ -n $data ]] || recipe_fail "no data: give the directory of clicks.csv as an argument or as LONGHAUL_GLOBO"
recipe_has "$data/clicks.csv" || recipe_fail "$data: there is no clicks.csv"
out=${out:-runs/globo-$reward}

case $reward in
    both) recipe_run ;;
    return_time | session_length) recipe_run --set "reward={$reward: {}}" ;;
    *) recipe_fail "--reward $reward: expected both, return_time or session_length" ;;
esac
