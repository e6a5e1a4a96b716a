#!/usr/bin/env python3
"""Imports the first users of the real logs by the recipes and holds the datasets against the raw files.

    test_recipes.py LONGHAUL RECIPES [DATA]

DATA (else $LONGHAUL_DATA, else ../shared/data beside the sources) holds ml-1m, globo-news and
kuairand-pure-part. What is missing is passed over with
a message; if nothing can be checked the exit status is 77, which ctest shows as skipped.
"""
import csv
import lzma
import os
import subprocess
import sys
import tempfile

SKIPPED = 77
HERE = os.path.dirname(os.path.abspath(__file__))


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit("%s\nexit status %d\n%s" % (" ".join(command), done.returncode, done.stdout))
    return done.stdout.strip()


def check(name, *arguments):
    print("%s: %s" % (name, run(sys.executable, os.path.join(HERE, "check_%s.py" % name), *arguments)))


def movielens(longhaul, schema, data, work):
    import check_movielens as m

    rows = m.lines(data, "ratings.dat")
    with open(os.path.join(work, "ratings.dat"), "w") as f:
        for row in rows:
            if int(row[0]) > 200:
                break
            f.write("::".join(row) + "\n")
    for name in ("users.dat", "movies.dat"):
        with open(os.path.join(work, name), "w", encoding="latin-1") as f:
            f.writelines("::".join(row) + "\n" for row in m.lines(data, name))
    out = os.path.join(work, "movielens")
    run(longhaul, "import", schema, "--data", work, "--out", out, "--quiet", "--set",
        "split.train=150", "--set", "split.validation=20")
    check("movielens", out, work, "200")


def globo(longhaul, schema, data, work):
    path = os.path.join(work, "clicks.csv")
    with lzma.open(os.path.join(data, "clicks.csv.xz"), "rt") as f, open(path, "w") as out:
        out.write(f.readline())
        for line in f:
            if int(line.split(",", 1)[0]) >= 400:
                break
            out.write(line)
    dataset = os.path.join(work, "globo")
    run(longhaul, "import", schema, "--data", work, "--out", dataset, "--quiet", "--set",
        "split.train=300", "--set", "split.validation=50")
    check("globo", dataset, path)


def kuairand(longhaul, schema, data, work):
    from partitions import SPLITS, Dataset

    # the schema's weights, once more by hand
    weights = {"is_click": 0.5, "long_view": 1, "is_like": 2, "is_comment": 2, "is_forward": 2,
               "is_follow": 3, "is_profile_enter": 0.5, "is_hate": -3}
    name = "log_standard_20220425_20220508.csv"
    want, users = {}, set()
    with lzma.open(os.path.join(data, name + ".xz"), "rt", newline="") as f, \
            open(os.path.join(work, name), "w", newline="") as out:
        rows = csv.DictReader(f)
        writer = csv.DictWriter(out, rows.fieldnames)
        writer.writeheader()
        for row in rows:
            if int(row["user_id"]) % 20:
                continue
            writer.writerow(row)
            users.add(int(row["user_id"]))
            key = (int(row["user_id"]), int(row["time_ms"]) * 1000)
            want.setdefault(key, []).append(sum(w * float(row[c]) for c, w in weights.items()))
    with lzma.open(os.path.join(data, "user_features_pure.csv.xz"), "rt") as f, \
            open(os.path.join(work, "user_features_pure.csv"), "w") as out:
        out.writelines(f)
    dataset = os.path.join(work, "kuairand")
    run(longhaul, "import", schema, "--data", work, "--out", dataset, "--quiet")
    got = {}
    for split in SPLITS:
        rows = Dataset(dataset).split[split]
        for user, time, reward in zip(rows["user"], rows["time_us"], rows["reward"]):
            got.setdefault((int(user), int(time)), []).append(float(reward))
    assert {k: sorted(v) for k, v in got.items()} == {k: sorted(v) for k, v in want.items()}
    print("kuairand: users %d; rows %d; every reward as by hand" % (len(users), sum(map(len, got.values()))))


def main():
    longhaul, recipes = sys.argv[1:3]
    beside = os.path.join(HERE, "..", "..", "..", "shared", "data")
    root = sys.argv[3] if len(sys.argv) > 3 else os.environ.get("LONGHAUL_DATA") or beside
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("skipped: this Python has no numpy (Debian: python3-numpy)")
        return SKIPPED
    sys.path.insert(0, HERE)
    done = 0
    for test, recipe, folder, file in (
        (movielens, "movielensl-1m", "ml-1m", "ratings.dat.gz"),
        (globo, "globo", "globo-news", "clicks.csv.xz"),
        (kuairand, "kuairand", "kuairand-pure-part", "log_standard_20220425_20220508.csv.xz"),
    ):
        data = os.path.join(root, folder)
        if not os.path.exists(os.path.join(data, file)):
            print("%s: skipped, %s is not there (LONGHAUL_DATA names the directory)" % (
                recipe, os.path.join(data, file)))
            continue
        with tempfile.TemporaryDirectory() as work:
            test(longhaul, os.path.join(recipes, recipe, "schema.yaml"), data, work)
        done += 1
    return 0 if done else SKIPPED


if __name__ == "__main__":
    sys.exit(main())
