# Shared by the recipes: finding the program and the data, and the four commands. Sourced, not run.
# Expects $recipe (this recipe's directory), $data, $out; may use $reward.

recipe_fail() {
    echo "$(basename "$recipe"): $*" >&2
    exit 1
}

# Fills data, out, reward and the array overrides from the command line.
overrides=()
recipe_arguments() {
    while (($#)); do
        case $1 in
            -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$recipe/run.sh"; exit 0 ;;
            --out) out=${2:?--out needs a directory}; shift 2 ;;
            --set) overrides+=(--set "${2:?--set needs KEY=VALUE}"); shift 2 ;;
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

# A file as it is, or the compressed one beside it.
recipe_file() {
    local ending
    for ending in "" .gz .xz .zst .bz2; do
        [[ -e $1$ending ]] && { echo "$1$ending"; return; }
    done
    recipe_fail "$1: no such file, plain or compressed (.gz, .xz, .zst, .bz2)"
}

recipe_program() {
    local root
    root=$(cd "$recipe/../../.." && pwd)
    if [[ -n ${LONGHAUL:-} ]]; then
        echo "$LONGHAUL"
    elif [[ -x $root/build/release/longhaul ]]; then
        echo "$root/build/release/longhaul"
    else
        command -v longhaul || recipe_fail "longhaul is not built; see README.md, or set LONGHAUL to it"
    fi
}

# Prints a command as it can be typed, then runs it.
recipe_step() {
    printf '\n$ longhaul'
    printf ' %q' "$@"
    printf '\n'
    "$longhaul" "$@"
}
