#!/usr/bin/env bash
# Runs the fuzz targets under libFuzzer with AddressSanitizer and UBSan (clang is needed), one after
# the other, and says how many inputs each was given. What libFuzzer finds interesting is kept in
# build/fuzz/found/TARGET and used again; a crash leaves its input in build/fuzz/crash-TARGET-….
#   scripts/fuzz.sh [SECONDS [TARGET…]]      60 seconds each, all targets; for example:
#                                            scripts/fuzz.sh 600 csv yaml
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
[[ $seconds =~ ^[0-9]+$ ]] || { sed -n '2,7s/^# *//p' scripts/fuzz.sh; [[ $seconds == --help ]] && exit 0; exit 2; }
shift || true
targets=("$@")
((${#targets[@]})) || for path in tests/fuzz/corpus/*; do targets+=("${path##*/}"); done
command -v clang >/dev/null || { echo "fuzz: clang is not installed" >&2; exit 1; }

mkdir -p build/fuzz
CC=clang cmake -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLH_NATIVE=OFF -DLH_FUZZ=ON \
    >build/fuzz.log || { cat build/fuzz.log >&2; exit 1; }
cmake --build build/fuzz --target fuzz >build/fuzz.log || { cat build/fuzz.log >&2; exit 1; }

bad=0
for target in "${targets[@]}"; do
    found=build/fuzz/found/$target
    mkdir -p "$found"
    log=build/fuzz/$target.log
    if ! "build/fuzz/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="build/fuzz/crash-$target-" -print_final_stats=1 "$found" "tests/fuzz/corpus/$target" \
        >"$log" 2>&1; then
        bad=1
        printf 'fuzz: %s FAILED, see %s\n' "$target" "$log"
        continue
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf 'fuzz: %-12s %12s inputs, %s\n' "$target" "$runs" \
        "$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1)"
done
exit $bad
