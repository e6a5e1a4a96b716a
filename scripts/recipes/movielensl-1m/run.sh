#!/usr/bin/env bash
# MovieLensL-1m of the ResAct paper: imports MovieLens-1M, trains, evaluates and exports a policy.
#
#   scripts/recipes/movielensl-1m/run.sh [DIR] [--out DIR] [--set KEY=VALUE]...
#
# DIR holds ratings.dat, users.dat and movies.dat, plain or .gz; else $LONGHAUL_ML1M does; else they are
# downloaded once into ~/.cache/longhaul. Results go to runs/movielensl-1m (--out); --set goes to train.
# LONGHAUL names the program where it is not in build/ or on the PATH.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
source "$recipe/../lib.sh"

data=${LONGHAUL_ML1M:-} out=runs/movielensl-1m
recipe_arguments "$@"

has_files() {
    local f
    for f in ratings users movies; do
        [[ -e $1/$f.dat || -e $1/$f.dat.gz ]] || return 1
    done
}

if [[ -z $data ]]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/longhaul
    data=$cache/ml-1m
    if ! has_files "$data"; then
        url=https://files.grouplens.org/datasets/movielens/ml-1m.zip
        echo "downloading MovieLens-1M (6 MB) from $url; see its README for the terms of use" >&2
        mkdir -p "$cache"
        curl -fL --connect-timeout 10 --max-time 300 -o "$cache/ml-1m.zip.part" "$url" ||
            recipe_fail "no data: give the directory of ratings.dat as an argument or as LONGHAUL_ML1M"
        python3 -m zipfile -e "$cache/ml-1m.zip.part" "$cache"
        rm "$cache/ml-1m.zip.part"
    fi
fi
has_files "$data" || recipe_fail "$data: ratings.dat, users.dat and movies.dat (or .gz) are not all there"

recipe_run "$data" "$(recipe_file "$data/ratings.dat")"
