#!/usr/bin/env bash
# Line coverage by gcov: builds longhaul with counters in build/coverage, runs the tests and prints a table
# by folder and file, least covered first. A process that is killed does not write its counts.
#   scripts/coverage.sh [--all] [--json] [-- CTEST…]
#     --all        after the unit and integration tests the others too (command line, faults, fuzz corpora,
#                  references), and a second column: what all of them reach together
#     --json       one object instead of the table
#     -- CTEST…    options for ctest, for example -R '^store$' (the table then speaks of those tests alone)
#   The table goes to standard output, the progress of build and tests to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD build=build/coverage

all='' json=0
while (($#)); do
    case "$1" in
        --all) all=1 ;;
        --json) json=1 ;;
        --) shift; break ;;
        *) sed -n '2,9s/^# *//p' scripts/coverage.sh; [[ $1 == --help ]] && exit 0; exit 2 ;;
    esac
    shift
done
jobs=$(nproc)
mkdir -p $build

scripts/setup.sh --tests >&2
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Debug -DLH_COVERAGE=ON -DLH_TESTS=ON >$build.log ||
    { cat $build.log >&2; exit 1; }
echo "coverage: building" >&2
cmake --build $build -j "$jobs" >$build.log || { cat $build.log >&2; exit 1; }
find $build -name '*.gcda' -delete

# count FILE: executable and executed lines of each product file, over all objects it was compiled into
count() {
    find $build -name '*.gcno' -print0 | xargs -0 gcov -t -r -s "$top" 2>$build/gcov.log | awk -F: '
        { line = $2 + 0; count = $1; gsub(/[ *]/, "", count) }
        line == 0 { if ($3 == "Source") file = $4; next }
        file !~ /^(common|ps|worker|cluster)\// || count == "-" { next }
        { if (!((file, line) in hits)) lines[file]++
          if (count + 0 > 0 && !hits[file, line]) executed[file]++
          hits[file, line] += count + 0 }
        END { for (file in lines) print file "\t" lines[file] "\t" executed[file] + 0 }' | sort >"$1"
}

run() { # NAME LABELS CTEST…
    local name=$1 labels=$2
    shift 2
    echo "coverage: running tests: $name" >&2
    ctest --test-dir $build -j "$jobs" $labels --output-on-failure --no-tests=ignore "$@" >&2 || failed=1
    count "$build/$name.tsv"
}
failed=0
run unit-integration '-L ^(unit|integration)$' "$@"
columns=(unit-integration)
# no_room runs the program where nothing may be written, so its counts cannot be either
[[ -z $all ]] || { run all '-LE ^(unit|integration|source)$ -E ^no_room' "$@"; columns+=(all); }

# FILE LINES EXECUTED [EXECUTED_BY_ALL], least covered first
join -t $'\t' -o 0,1.2,1.3,2.3 $build/unit-integration.tsv "$build/${columns[-1]}.tsv" |
    awk -F'\t' -v OFS='\t' '{ print $3 / $2, $0 }' | sort -k1,1g -k3,3nr | cut -f2- |
    awk -F'\t' -v all="$all" -v json="$json" '
    function percent(part, whole) { return sprintf("%.1f", 100 * part / whole) }
    function row(name, lines, one, two) {
        if (json) {
            r = "{\"name\": \"" name "\", \"lines\": " lines ", \"unit_integration\": " percent(one, lines)
            return all ? r ", \"all\": " percent(two, lines) "}" : r "}"
        }
        r = sprintf("%-32s %7d %17s", name, lines, percent(one, lines))
        return all ? r sprintf(" %7s", percent(two, lines)) : r
    }
    { split($1, path, "/"); n++; name[n] = $1; lines[n] = $2; one[n] = $3; two[n] = $4
      folder = path[1]; fl[folder] += $2; f1[folder] += $3; f2[folder] += $4
      tl += $2; t1 += $3; t2 += $4
      if (all && (!low || $4 / $2 < lowest)) { low = NR; lowest = $4 / $2 } }
    END {
        count = split("common ps worker cluster", folders, " ")
        if (json) {
            printf "{\"total\": %s, \"least\": \"%s\"", row("all files", tl, t1, t2), name[1]
            if (all) printf ", \"least_by_all\": \"%s\"", name[low]
            printf ", \"folders\": ["
            for (i = 1; i <= count; i++) printf "%s%s", (i > 1 ? ", " : ""), row(folders[i], fl[folders[i]], f1[folders[i]], f2[folders[i]])
            printf "], \"files\": ["
            for (i = 1; i <= n; i++) printf "%s%s", (i > 1 ? ", " : ""), row(name[i], lines[i], one[i], two[i])
            print "]}"
            exit
        }
        printf "%-32s %7s %17s%s\n", "", "lines", "unit, integration", all ? "     all" : ""
        for (i = 1; i <= count; i++) print row(folders[i] "/", fl[folders[i]], f1[folders[i]], f2[folders[i]])
        print row("all files", tl, t1, t2) "\n"
        for (i = 1; i <= n; i++) print row(name[i], lines[i], one[i], two[i])
        printf "\nleast covered by unit and integration tests: %s, %s%%\n", name[1], percent(one[1], lines[1])
        if (all) printf "least covered by all tests: %s, %s%%\n", name[low], percent(two[low], lines[low])
    }'
exit $failed
