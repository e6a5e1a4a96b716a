#!/usr/bin/env bash
# Builds and tests longhaul: release, debug under AddressSanitizer and UBSan, and the tests of what
# runs in threads under ThreadSanitizer. All tests run as one ctest, whose closing lines come last.
#   scripts/test.sh                       everything
#   scripts/test.sh CONFIG… [-- CTEST…]   only release, asan or tsan; options for ctest behind --,
#                                         for example: scripts/test.sh asan -- -R yaml
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD

configs=()
while (($#)); do
    case "$1" in
        release | asan | tsan) configs+=("$1") ;;
        --) shift; break ;;
        *) sed -n '2,6s/^# *//p' scripts/test.sh; [[ $1 == --help ]] && exit 0; exit 2 ;;
    esac
    shift
done
((${#configs[@]})) || configs=(release asan tsan)
jobs=$(nproc)

scripts/setup.sh --tests

configure() { # NAME OPTION…
    local name=$1
    shift
    cmake -S . -B "build/$name" -G Ninja -DLH_WERROR=ON -DLH_TESTS=ON -DLH_TEST_PREFIX="$name." "$@" \
        >"build/$name.log" || { cat "build/$name.log" >&2; exit 1; }
    printf 'test: building %s\n' "$name"
    cmake --build "build/$name" -j "$jobs" >"build/$name.log" || { cat "build/$name.log" >&2; exit 1; }
}

mkdir -p build/tests
: >build/tests/CTestTestfile.cmake
for name in "${configs[@]}"; do
    case "$name" in
        release) configure release -DCMAKE_BUILD_TYPE=Release ;;
        asan) configure asan -DCMAKE_BUILD_TYPE=Debug -DLH_SANITIZE=address ;;
        tsan) configure tsan -DCMAKE_BUILD_TYPE=Debug -DLH_SANITIZE=thread ;;
    esac
    printf 'subdirs("%s/build/%s")\n' "$top" "$name" >>build/tests/CTestTestfile.cmake
done

printf 'test: running %s\n' "${configs[*]}"
exec ctest --test-dir build/tests -j "$jobs" --output-on-failure --no-tests=error "$@"
