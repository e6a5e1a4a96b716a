#!/usr/bin/env bash
# MovieLens-100k: imports it, then trains, evaluates and exports policies, in under a minute.
#
#   scripts/recipes/movielens-100k/run.sh [DIR] [options]
#
# DIR holds u.data, u.user and u.item, plain or compressed; else $LONGHAUL_ML100K does; else they
# are downloaded once into ~/.cache/longhaul.
#   --out DIR               where results go (runs/movielens-100k)
#   --algorithms "A B"      what to train ("il il_cvae resact")
#   --seeds "1 2"           a run of each for every algorithm, pooled in the evaluation (the job's seed alone)
#   --set KEY=VALUE         overrides a key of job.yaml; may be repeated
# LONGHAUL names the program where it is neither in build/release nor on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_ML100K:-} out=runs/movielens-100k
recipe_arguments "$@"

has_files() {
    recipe_has "$1/u.data" && recipe_has "$1/u.user" && recipe_has "$1/u.item"
}

if [[ -z $data ]]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/longhaul
    data=$cache/ml-100k
    if ! has_files "$data"; then
        url=https://files.grouplens.org/datasets/movielens/ml-100k.zip
        echo "downloading MovieLens-100k (5 MB) from $url; its README tells the terms of use" >&2
        mkdir -p "$cache"
        curl -fL --connect-timeout 10 --max-time 300 -o "$cache/ml-100k.zip.part" "$url" ||
            recipe_fail "no data: give the directory of u.data as an argument or as LONGHAUL_ML100K"
        python3 -m zipfile -e "$cache/ml-100k.zip.part" "$cache"
        rm "$cache/ml-100k.zip.part"
    fi
fi
has_files "$data" || recipe_fail "$data: u.data, u.user and u.item are not all there"

recipe_run
