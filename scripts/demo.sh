#!/usr/bin/env bash
# From nothing to a trained, evaluated and exported policy: installs what is missing, builds, then
# runs plain longhaul commands over scripts/recipes/demo, each printed before it runs. All it makes
# is under build/demo, which is made anew each time.
set -euo pipefail
cd "$(dirname "$0")/.."

recipe=scripts/recipes/demo
work=build/demo
workers=$(nproc)
((workers <= 4)) || workers=4

scripts/setup.sh
echo "demo: building (build/release)"
mkdir -p build
cmake -S . -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DLH_TESTS=OFF >build/release.log 2>&1 &&
    cmake --build build/release --target longhaul >>build/release.log 2>&1 ||
    { cat build/release.log >&2; exit 1; }
PATH=$PWD/build/release:$PATH

title() {
    printf '\n\033[1m%s\033[0m\n' "$*"
}
step() {
    printf '\n$ longhaul'
    printf ' %q' "$@"
    printf '\n'
    longhaul "$@"
}
[[ -t 1 ]] || title() { printf '\n%s\n' "$*"; }

rm -rf "$work"
mkdir -p "$work"

title "1. A log: sessions of users in a simulated world, whose best policy is known"
step simulate --out $work/log

title "2. Import: raw CSV under its schema, into partitions of transitions"
step import $work/log/schema.yaml --out $work/dataset
step inspect $work/dataset

title "3. Train on a parameter server and $workers workers: two imitation baselines, then ResAct"
for algorithm in il il_cvae resact; do
    step train $recipe/job.yaml --dir $work/$algorithm --workers "$workers" \
        --set dataset=$work/dataset --set algorithm=$algorithm
done

title "4. Export: a snapshot acts by itself, on raw states"
step export --dir $work/resact --out $work/policy
head -n 3 $work/log/log-00000.csv >$work/states.csv
step act --snapshot $work/policy --keep user_id $work/states.csv
step act --snapshot $work/policy --keep user_id --explain --estimators 4 $work/states.csv

title "5. What the log says the policies are worth, and what they truly earn"
step evaluate --snapshot $work/policy
step simulate --dataset $work/dataset --play $work/il --play $work/il_cvae --play $work/resact

cat <<EOF

What to try next (export PATH=\$PWD/build/release:\$PATH first):
  longhaul act --snapshot $work/policy --explain $work/states.csv --out-format jsonl
  longhaul train $recipe/job.yaml --dir $work/again --set dataset=$work/dataset \\
      --launcher processes --servers 2 --workers 2      # the same weights, bit for bit
  longhaul train $recipe/job.yaml --dir $work/half --set dataset=$work/dataset --stop-after 100
  longhaul train $recipe/job.yaml --dir $work/half --set dataset=$work/dataset --resume
  longhaul help job                                     # every key of a job
  longhaul init YOUR-LOG.csv --out mine                 # a schema and a job for a log of yours
  scripts/recipes/movielensl-1m/run.sh DIRECTORY        # ResAct on MovieLens-1M
EOF
