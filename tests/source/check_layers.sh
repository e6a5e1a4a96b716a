#!/usr/bin/env bash
# Dependencies point one way: proto <- common <- ps, worker <- cluster. File names are unique.
set -euo pipefail
cd "$(dirname "$0")/../.."
bad=0

forbid() { # FOLDER may not include any of FOLDERS…
    local folder=$1 other rows
    shift
    for other in "$@"; do
        rows=$(grep -rnE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<]$other/" --include='*.[ch]' "$folder" || true)
        [[ -z $rows ]] || { printf '%s may not include %s:\n%s\n' "$folder" "$other" "$rows"; bad=1; }
    done
}
forbid common ps worker cluster tests
forbid ps worker cluster tests
forbid worker ps cluster tests
forbid cluster tests

# includes are written from the root, so that the rule above sees all of them
rows=$(grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' --include='*.[ch]' common ps worker cluster tests |
    grep -vE 'include[[:space:]]*"(common|ps|worker|cluster|proto|tests)/' || true)
[[ -z $rows ]] || { printf 'includes must name the path from the root:\n%s\n' "$rows"; bad=1; }

twice=$(find common ps worker cluster tests -name '*.[ch]' -printf '%f\n' | sort | uniq -d)
[[ -z $twice ]] || { printf 'file names that are there twice:\n%s\n' "$twice"; bad=1; }
exit $bad
