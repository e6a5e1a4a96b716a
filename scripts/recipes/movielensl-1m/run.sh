#!/usr/bin/env bash
# MovieLensL-1m of the ResAct paper: imports MovieLens-1M, then trains, evaluates and exports policies.
#
#   scripts/recipes/movielensl-1m/run.sh [DIR] [options]
#
# DIR holds ratings.dat, users.dat and movies.dat, plain or compressed; else $LONGHAUL_ML1M does; else they
# are downloaded once into ~/.cache/longhaul.
#   --out DIR               where results go (runs/movielensl-1m)
#   --algorithms "A B"      what to train ("il il_cvae resact")
#   --seeds "1 2"           a run of each for every algorithm, pooled in the evaluation (the job's seed alone)
#   --set KEY=VALUE         overrides a key of job.yaml; may be repeated
# LONGHAUL names the program where it is neither in build/release nor on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_ML1M:-} out=runs/movielensl-1m
recipe_arguments "$@"

has_files() {
    recipe_has "$1/ratings.dat" && recipe_has "$1/users.dat" && recipe_has "$1/movies.dat"
}

if [[ -z $data ]]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/longhaul
    data=$cache/ml-1m
    if ! has_files "$data"; then
        url=https://files.grouplens.org/datasets/movielens/ml-1m.zip
        echo "downloading MovieLens-1M (6 MB) from $url; its README tells the terms of use" >&2
        mkdir -p "$cache"
        curl -fL --connect-timeout 10 --max-time 300 -o "$cache/ml-1m.zip.part" "$url" ||
            recipe_fail "no data: give the directory of ratings.dat as an argument or as LONGHAUL_ML1M"
        python3 -m zipfile -e "$cache/ml-1m.zip.part" "$cache"
        rm "$cache/ml-1m.zip.part"
    fi
fi
has_files "$data" || recipe_fail "$data: ratings.dat, users.dat and movies.dat are not all there"

recipe_run
