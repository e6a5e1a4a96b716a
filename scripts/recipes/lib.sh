# Shared by the recipes: the command line, finding the program, and the commands themselves. Sourced, not
# run. Expects $recipe (the recipe's directory), $data, $out and, where it may be chosen, $reward.

recipe_fail() {
    echo "$(basename "$recipe"): $*" >&2
    exit 1
}

# Fills data, out, algorithms, seeds, reward and overrides from the command line.
algorithms="il il_cvae resact"
seeds=""
overrides=()
recipe_arguments() {
    while (($#)); do
        case $1 in
            -h | --help) awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$recipe/run.sh"; exit 0 ;;
            --out) out=${2:?--out needs a directory}; shift 2 ;;
            --set) overrides+=(--set "${2:?--set needs KEY=VALUE}"); shift 2 ;;
            --seeds) seeds=${2:?--seeds needs a list}; shift 2 ;;
            --algorithms) algorithms=${2:?--algorithms needs a list}; shift 2 ;;
            --reward)
                [[ -v reward ]] || recipe_fail "--reward does not go with this recipe"
                reward=${2:?--reward needs a name}
                shift 2
                ;;
            -*) recipe_fail "unknown option $1; --help tells which there are" ;;
            *) data=$1; shift ;;
        esac
    done
}

# Whether a file is there, plain or compressed.
recipe_has() {
    local ending
    for ending in "" .gz .xz .zst .bz2; do
        [[ -e $1$ending ]] && return 0
    done
    return 1
}

recipe_find_program() {
    local root
    root=$(cd "$recipe/../../.." && pwd)
    longhaul=${LONGHAUL:-}
    [[ -n $longhaul || ! -x $root/build/release/longhaul ]] || longhaul=$root/build/release/longhaul
    [[ -n $longhaul ]] || longhaul=$(command -v longhaul) ||
        recipe_fail "longhaul is not built; scripts/demo.sh builds it, or set LONGHAUL to it"
}

# Prints a command as it can be typed, then runs it.
recipe_step() {
    printf '\n$ longhaul'
    printf ' %q' "$@"
    printf '\n'
    "$longhaul" "$@"
}

# Import (options for it follow), then for each algorithm, and each of the seeds if any are named, train and
# export; one evaluation of all, seeds pooled.
recipe_run() {
    local algorithm seed name workers names=() runs=() pool=()
    recipe_find_program
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    workers=$(nproc)
    ((workers <= 8)) || workers=8
    if [[ -e $out/dataset/manifest.json ]]; then
        printf '\n%s is there already and is used as it is; remove it to import anew\n' "$out/dataset"
    else
        recipe_step import "$recipe/schema.yaml" --data "$data" --out "$out/dataset" "$@"
    fi
    for algorithm in $algorithms; do
        for seed in ${seeds:-""}; do
            names+=("$algorithm${seed:+-$seed}")
            recipe_step train "$recipe/job.yaml" --dir "$out/${names[-1]}" --workers "$workers" \
                --set "dataset=$out/dataset" --set "algorithm=$algorithm" \
                ${overrides[@]+"${overrides[@]}"} ${seed:+--set "seed=$seed"}
            runs+=(--run "$out/${names[-1]}")
        done
    done
    [[ -z $seeds ]] || pool=(--pool)
    recipe_step evaluate ${pool[@]+"${pool[@]}"} "${runs[@]}"
    for name in "${names[@]}"; do
        recipe_step export --dir "$out/$name" --out "$out/policy-$name" --force
    done
}
