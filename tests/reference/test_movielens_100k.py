#!/usr/bin/env python3
"""Real data from end to end: imports MovieLens-100k by its recipe, holds the dataset against the raw files,
trains IL and ResAct for some steps, and holds the evaluation against one from the files alone.

    test_movielens_100k.py LONGHAUL RECIPES [DATA]

DATA (else $LONGHAUL_DATA, else ../shared/data beside the sources) holds ml-100k. Where it does not, the exit
status is 77, which ctest shows as skipped.
"""
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile

SKIPPED = 77
HERE = os.path.dirname(os.path.abspath(__file__))
LOG_VALUE = 1.588191  # mean over 943 users of mean rating - 2, of the raw file
STEPS = 40


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("%s\nexit status %d\n%s" % (" ".join(command), done.returncode, done.stderr))
    return done.stdout


def lines(data, name, separator):
    path = os.path.join(data, name)
    with open(path, encoding="latin-1") if os.path.exists(path) else gzip.open(
        path + ".gz", "rt", encoding="latin-1"
    ) as f:
        return [line.rstrip("\r\n").split(separator) for line in f]


def history(log, movies, items):
    """s_h without the user's attributes, s_l, action of each rating: from those before it."""
    import numpy as np

    zero = np.zeros(32)
    vectors = np.array([items.get(movie, zero) for movie, _, _ in log])
    rewards = np.array([rating - 2.0 for _, rating, _ in log])
    high, low = [], []
    for i in range(len(log)):
        genres = [movies[movie] for movie, _, _ in log[:i]]
        high.append(np.concatenate([
            [np.log1p(i), rewards[:i].mean() if i else 0],
            np.mean(genres, axis=0) if i else np.zeros(18),
        ]))
        near = [k for k in range(max(0, i - 10), i) if log[k][0] in items]
        low.append(np.concatenate([
            vectors[near].mean(axis=0) if near else zero,
            (vectors[near] * rewards[near, None]).mean(axis=0) if near else zero,
            [np.log1p((log[i][2] - log[i - 1][2]) / 60) if i else 0],
        ]))
    return np.array(high), np.array(low), vectors


def check_rows(dataset, data):
    import numpy as np
    from partitions import SPLITS, Dataset, read_items

    log, attributes = {}, {}
    for user, movie, rating, time in lines(data, "u.data", "\t"):
        log.setdefault(int(user), []).append((int(movie), int(rating), int(time)))
    for rows in log.values():
        rows.sort(key=lambda row: row[2])  # stable: equal times keep the order of the file
    for user, age, gender, _, _ in lines(data, "u.user", "|"):
        attributes[int(user)] = [gender == "F", gender == "M", int(age) / 100]
    movies = {int(r[0]): np.array(r[6:], float) for r in lines(data, "u.item", "|")}
    items, split = read_items(dataset), Dataset(dataset)
    by_log = {}
    for user, rows in log.items():
        by_log.setdefault(tuple((time, rating - 2) for _, rating, time in rows), []).append(user)
    means, found, worst = {}, set(), 0.0
    for name in SPLITS:
        rows, means[name] = split.split[name], []
        for t in split.trajectories(name):
            key = tuple((int(u) // 1000000, int(r)) for u, r in zip(rows["time_us"][t], rows["reward"][t]))
            assert len(by_log.get(key, [])) == 1, "%s: a trajectory that no user of u.data has" % name
            (user,) = by_log[key]
            found.add(user)
            means[name].append(np.mean([rating - 2 for _, rating, _ in log[user]]))
            assert np.allclose(rows["state_high"][t, :3], attributes[user], atol=1e-6)
            assert (rows["state_high"][t, 3:24].sum(axis=1) == 1).all(), "one occupation"
            if name != "train":  # the same code made the others; 250 users are enough
                high, low, action = history(log[user], movies, items)
                worst = max(worst, np.abs(rows["state_high"][t, 24:] - high).max(),
                            np.abs(rows["state_low"][t] - low).max(), np.abs(rows["action"][t] - action).max())
    assert found == set(log) and len(found) == 943
    assert worst < 2e-5, "a feature differs by %g" % worst
    return {name: (len(m), float(np.mean(m))) for name, m in means.items()}


def check_log_value(longhaul, dataset, means):
    total = 0.0
    for name, (users, mean) in means.items():
        said = json.loads(run(longhaul, "evaluate", "--policy", "behaviour", "--dataset", dataset,
                              "--split", name, "--json"))["log"]
        assert said["trajectories"] == users
        assert abs(said["value"] - mean) < 1e-9, "%s: %r, by hand %r" % (name, said["value"], mean)
        total += users * said["value"]
    value = total / sum(users for users, _ in means.values())
    assert abs(value - LOG_VALUE) < 1e-6, "the log's own value is %.7f" % value
    return value


def check_run(directory):
    """Metrics of every step, the evaluations, and the record agree; the reconstruction improves."""
    with open(os.path.join(directory, "metrics.jsonl")) as f:
        metrics = [json.loads(line) for line in f]
    with open(os.path.join(directory, "evaluations.jsonl")) as f:
        evaluations = [json.loads(line) for line in f]
    with open(os.path.join(directory, "run.json")) as f:
        record = json.load(f)
    assert [m["step"] for m in metrics] == list(range(1, STEPS + 1))
    assert [e["step"] for e in evaluations] == [STEPS // 2, STEPS]
    kept = {c["version"]: c["evaluation"] for c in record["cuts"]}
    assert kept[STEPS] == evaluations[-1]["evaluation"] and 0 < record["best"] <= STEPS
    first, last = (sum(m["rec"] for m in part) for part in (metrics[:5], metrics[-5:]))
    assert last < 0.95 * first, "rec went from %g to %g" % (first / 5, last / 5)


def check_values(longhaul, dataset, work, policies):
    """Eq. 15 and Algorithm 2 by other code; who draws latents may differ as another seed of execution does."""
    (behaviour,) = os.listdir(os.path.join(dataset, ".behaviour"))
    snapshots = []
    for policy in policies:
        snapshots.append(os.path.join(work, "policy-" + policy["name"]))
        run(longhaul, "export", "--dir", os.path.join(work, policy["name"]), "--out", snapshots[-1])
    said = run(sys.executable, os.path.join(HERE, "check_evaluation.py"), dataset,
               os.path.join(dataset, ".behaviour", behaviour), "test", "10", *snapshots)
    for policy, line in zip(policies, said.splitlines()):
        other = json.loads(line)
        draws = policy["estimators"] > 1
        policy["q"] = policy.get("choice", {"q": 0})["q"]  # of the chosen action: tells the best from any
        other["q"] = other["q"] or 0
        for key, near in (("value", 0.05), ("lo", 0.05), ("hi", 0.05), ("difference", 0.05), ("difference_lo", 0.05),
                          ("ess_share", 0.02), ("mean_distance", 0.01), ("q", 0.001)):
            gap = abs(policy[key] - other[key])
            assert gap < (near if draws else 1e-5), "%s: %s is %r, by other code %r" % (
                policy["name"], key, policy[key], other[key])


def check_seeds(longhaul, recipe, data, work):
    """The script, on the dataset that is there: a run and a policy for each algorithm and seed, one evaluation."""
    os.environ["LONGHAUL"] = longhaul
    said = run(os.path.join(recipe, "run.sh"), data, "--out", work, "--algorithms", "il il_cvae", "--seeds", "5 6",
               "--set", "train.steps=4")
    for name in ("il-5", "il-6", "il_cvae-5", "il_cvae-6"):
        assert os.path.exists(os.path.join(work, "policy-" + name, "manifest.json")), name
        with open(os.path.join(work, name, "config.yaml")) as f:
            assert "\nseed: %s\n" % name[-1] in f.read(), name
    pooled = [line.split() for line in said.splitlines() if re.match("il(_cvae)? +2 ", line)]
    assert [line[0] for line in pooled] == ["il", "il_cvae"], said


def test(longhaul, recipe, data, work):
    dataset = os.path.join(work, "dataset")
    run(longhaul, "import", os.path.join(recipe, "schema.yaml"), "--data", data, "--out", dataset, "--quiet")
    means = check_rows(dataset, data)
    value = check_log_value(longhaul, dataset, means)
    runs = []
    for name in ("il", "resact", "regression"):  # the last: ResAct without a CVAE
        directory = os.path.join(work, name)
        algorithm, cvae = ("il" if name == "il" else "resact"), str(name != "regression").lower()
        run(longhaul, "train", os.path.join(recipe, "job.yaml"), "--dir", directory, "--workers", "2", "--quiet",
            "--set", "dataset=" + dataset, "--set", "algorithm=" + algorithm, "--set", "train.steps=%d" % STEPS,
            "--set", "evaluation.every=%d" % (STEPS // 2), "--set", "optimiser.lr_cvae=0.001",
            "--set", "objective.cvae=" + cvae)
        check_run(directory)
        runs += ["--run", directory]
    said = json.loads(run(longhaul, "evaluate", "--json", *runs))
    assert abs(said["log"]["value"] - means["test"][1]) < 1e-9
    for policy in said["policies"]:
        assert -1 <= policy["lo"] < policy["value"] < policy["hi"] <= 3, policy
        # a few steps of imitation are near the log: near in value, in distance, and most rows count
        assert abs(policy["difference"]) < 0.25 and policy["ess_share"] > 0.1, policy
        assert 0.9 < policy["mean_distance"] < 1.3, policy
    check_values(longhaul, dataset, work, said["policies"])
    check_seeds(longhaul, recipe, data, work)
    print("users %d, log %.6f; test: log %.4f, %s" % (
        sum(n for n, _ in means.values()), value, said["log"]["value"], ", ".join(
            "%s %.4f (ESS %.0f%%)" % (p["algorithm"], p["value"], 100 * p["ess_share"]) for p in said["policies"])))


def main():
    longhaul, recipes = sys.argv[1:3]
    beside = os.path.join(HERE, "..", "..", "..", "shared", "data")
    root = sys.argv[3] if len(sys.argv) > 3 else os.environ.get("LONGHAUL_DATA") or beside
    data = os.path.join(root, "ml-100k")
    if not any(os.path.exists(os.path.join(data, "u.data" + end)) for end in ("", ".gz")):
        print("skipped: %s is not there (LONGHAUL_DATA names the directory of ml-100k)" % os.path.join(data, "u.data"))
        return SKIPPED
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("skipped: this Python has no numpy (Debian: python3-numpy)")
        return SKIPPED
    sys.path.insert(0, HERE)
    with tempfile.TemporaryDirectory() as work:
        test(longhaul, os.path.join(recipes, "movielens-100k"), data, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
