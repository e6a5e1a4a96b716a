#!/usr/bin/env bash
# Every C file is formatted as .clang-format says (version 14, Debian 12's).
set -euo pipefail
cd "$(dirname "$0")/../.."
tool=$(command -v clang-format-14 || command -v clang-format)
"$tool" --version | grep -q 'version 14\.' || { echo "clang-format 14 is needed, found: $("$tool" --version)"; exit 1; }
find common ps worker cluster tests -name '*.[ch]' -print0 | xargs -0 -P "$(nproc)" -n 16 "$tool" --dry-run -Werror
