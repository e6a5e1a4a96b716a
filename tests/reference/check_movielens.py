#!/usr/bin/env python3
"""Holds a dataset of the movielensl-1m recipe against the raw files: rewards, attributes, history.

    check_movielens.py DATASET DATA [USERS]

Independent of longhaul: every feature of every row is computed anew, in double, from ratings.dat and
users.dat (plain or .gz in DATA) and from the item vectors that the dataset carries. USERS: the dataset
was made from the first so many users of the file only.
"""
import gzip
import os
import sys

import numpy as np

from partitions import SPLITS, Dataset, read_items

AGES = [1, 18, 25, 35, 45, 50, 56]


def lines(directory, name):
    path = os.path.join(directory, name)
    with open(path, encoding="latin-1") if os.path.exists(path) else gzip.open(
        path + ".gz", "rt", encoding="latin-1"
    ) as f:
        return [line.rstrip("\r\n").split("::") for line in f]


def read_log(directory, users):
    log = {}
    for user, movie, rating, _ in lines(directory, "ratings.dat"):
        if users and int(user) > users:
            break
        log.setdefault(int(user), []).append((int(movie), int(rating)))
    return log


def states(log, attributes, items):
    """s_h, s_l, action and reward of one user's rows."""
    gender, age, job = attributes
    zero = np.zeros(len(next(iter(items.values()))))
    vectors = [items.get(movie, zero) for movie, _ in log]
    known = [movie in items for movie, _ in log]
    reward = [float(rating - 2) for _, rating in log]
    one_hot = np.concatenate(
        [[gender == "F", gender == "M"], [age == a for a in AGES], [job == j for j in range(21)]]
    ).astype(float)
    high, low = [], []
    for i in range(len(log)):
        mean = np.mean(reward[:i]) if i else 0.0
        high.append(np.concatenate([one_hot, [np.log1p(i), mean]]))
        window = [k for k in range(max(0, i - 10), i) if known[k]]
        plain = np.mean([vectors[k] for k in window], axis=0) if window else zero
        by_reward = np.mean([reward[k] * vectors[k] for k in window], axis=0) if window else zero
        low.append(np.concatenate([plain, by_reward]))
    return np.array(high), np.array(low), np.array(vectors), np.array(reward)


def main():
    dataset = Dataset(sys.argv[1])
    log = read_log(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    attributes = {int(u): (g, int(a), int(j)) for u, g, a, j, _ in lines(sys.argv[2], "users.dat")}
    items = read_items(sys.argv[1])
    # users are hashes in a dataset: a user is found by what it rated, as rewards in order
    by_reward = {}
    for user, rows in log.items():
        by_reward.setdefault(tuple(rating - 2 for _, rating in rows), []).append(user)
    found, means, rated, worst = set(), [], set(), 0.0
    for split in SPLITS:
        rows = dataset.split[split]
        for t in dataset.trajectories(split):
            key = tuple(int(r) for r in rows["reward"][t])
            users = [u for u in by_reward.get(key, []) if u not in found]
            assert users, "%s: a trajectory of %d rows that no user of the file has" % (split, len(t))
            gaps = []
            for user in users:  # equal ratings: the one whose features fit
                high, low, action, reward = states(log[user], attributes[user], items)
                gaps.append(max(
                    np.abs(rows["state_high"][t] - high).max(),
                    np.abs(rows["state_low"][t] - low).max(),
                    np.abs(rows["action"][t] - action).max(),
                ))
            user = users[int(np.argmin(gaps))]
            worst = max(worst, min(gaps))
            found.add(user)
            means.append(np.mean([rating - 2 for _, rating in log[user]]))
            if split == "train":
                rated.update(movie for movie, _ in log[user])
            assert rows["flags"][t[-1]] & 6 == 2, "the last row is last, and cut off"
    assert found == set(log), "%d users of the file are not in the dataset" % len(set(log) - found)
    assert rated == set(items), "vectors are those of the movies that training users rated"
    assert worst < 2e-5, "a feature differs by %g" % worst
    counts = {s: len(dataset.trajectories(s)) for s in SPLITS}
    print("users %s; rows %d; mean over users of mean reward %.6f; largest difference %.1e" % (
        counts, sum(len(r) for r in log.values()), np.mean(means), worst))


if __name__ == "__main__":
    main()
