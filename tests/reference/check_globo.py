#!/usr/bin/env python3
"""Holds a dataset of the globo recipe against clicks.csv: sessions, Eq. 21 and 22, features.

    check_globo.py DATASET CLICKS [WEIGHT_RETURN WEIGHT_LENGTH] [--users N]

CLICKS: clicks.csv, plain, .gz or .xz. The weights of the mix are 0.7 and 0.3 unless given. --users N: the
dataset was made from the users with ids below N. Independent of longhaul: all is computed anew, in double.
"""
import csv
import gzip
import lzma
import sys

import numpy as np

from partitions import SPLITS, Dataset, read_items

ONE_HOT = 7 + 3 + 5 + 8 + 11 + 28  # referrer, environment, device, os, country, region


def read_clicks(path, users):
    opened = {"gz": gzip.open, "xz": lzma.open}.get(path.rsplit(".", 1)[-1], open)
    log = {}
    with opened(path, "rt") as f:
        for row in csv.DictReader(f):
            if users is None or int(row["user_id"]) < users:
                click = (int(row["click_time"]), int(row["session_id"]), int(row["article_id"]))
                log.setdefault(int(row["user_id"]), []).append(click)
    return log


def sessions_of(number):
    """[first, last] rows of each session, from the session numbers of a user's rows."""
    first = np.flatnonzero(np.diff(number, prepend=-1))
    return first, np.append(first[1:], len(number)) - 1


def gaps_of(time, first, last):
    return np.maximum(time[first[1:]] - time[last[:-1]], 1.0)


def reward_of(time, number, p75, weights):
    first, last = sessions_of(number)
    length = last - first + 1.0
    out = np.zeros(len(time))
    out[last] = weights[1] * np.clip(np.floor(length / (length.mean() * 0.8)), 0, 5)
    if len(first) > 1:
        gap = gaps_of(time, first, last)
        out[last[:-1]] += weights[0] * np.clip(np.floor(min(gap.mean(), p75) / gap), 0, 5)
    return out


def session_features(time, number, vectors):
    """Of s_h, behind the one-hot columns: counts, session means, since, clock, mean article."""
    first, last = sessions_of(number)
    rows = []
    for k, (a, b) in enumerate(zip(first, last)):
        gap = gaps_of(time, first[: k + 1], last[: k + 1]).mean() / 3600 if k else 0
        since = max(time[a] - time[a - 1], 0) / 3600 if k else 0
        clock = []
        for period, shift in ((86400, 0), (7 * 86400, 3 * 86400)):
            angle = 2 * np.pi * ((time[a] - 3 * 3600 + shift) % period) / period
            clock += [np.sin(angle), np.cos(angle)]
        known = [v for v in vectors[:a] if v is not None]
        mean = np.mean(known, axis=0) if known else np.zeros(32)
        row = np.concatenate([np.log1p([k, a, a / k if k else 0, gap, since]), clock, mean])
        rows += [row] * (b - a + 1)
    return np.array(rows)


def request_features(time, number, vectors):
    """s_l: mean of the last 10 articles, the last one, clicks of the session so far, time since the last."""
    first, _ = sessions_of(number)
    start = first[np.cumsum(np.diff(number, prepend=-1) != 0) - 1]
    rows = []
    for i in range(len(time)):
        parts = []
        for last in (10, 1):
            known = [v for v in vectors[max(0, i - last) : i] if v is not None]
            parts.append(np.mean(known, axis=0) if known else np.zeros(32))
        since = max(time[i] - time[i - 1], 0) / 60 if i else 0
        rows.append(np.concatenate(parts + [np.log1p([i - start[i], since])]))
    return np.array(rows)


def main():
    arguments = sys.argv[1:]
    users = None
    if "--users" in arguments:
        at = arguments.index("--users")
        users = int(arguments[at + 1])
        del arguments[at : at + 2]
    weights = [float(w) for w in arguments[2:4]] or [0.7, 0.3]
    dataset, items = Dataset(arguments[0]), read_items(arguments[0])
    log = read_clicks(arguments[1], users)
    found, rewards, worst = set(), [], 0.0

    averages = []
    rows = dataset.split["train"]
    for t in dataset.trajectories("train"):
        first, last = sessions_of(rows["session"][t].astype(int))
        if len(first) > 1:
            averages.append(np.float32(gaps_of(rows["time_us"][t] / 1e6, first, last).mean()))
    p75 = np.percentile(np.array(averages, dtype=np.float64), 75)

    for split in SPLITS:
        rows = dataset.split[split]
        for t in dataset.trajectories(split):
            user = int(rows["user"][t[0]])
            time, number = rows["time_us"][t] / 1e6, rows["session"][t].astype(int)
            raw = log[user]
            assert user not in found and len(raw) == len(t), user
            found.add(user)
            # sessions in order of their first click, clicks of a session in order of time; where
            # sessions overlap, a later one's clicks count as made when the earlier ended
            by_session = {}
            for click in raw:
                by_session.setdefault(click[1], []).append(click)
            groups = [sorted(g, key=lambda c: c[0]) for g in by_session.values()]
            groups.sort(key=lambda g: g[0][0])
            clicks = [c for g in groups for c in g]
            assert (time == np.maximum.accumulate([float(c[0]) for c in clicks])).all(), user
            assert (number == np.repeat(range(len(groups)), [len(g) for g in groups])).all(), user
            vectors = [items.get(c[2]) for c in clicks]
            action = np.array([np.zeros(32) if v is None else v for v in vectors])
            worst = max(worst, np.abs(action - rows["action"][t]).max())

            want = reward_of(time, number, p75, weights)
            worst = max(worst, np.abs(want - rows["reward"][t]).max())
            high = rows["state_high"][t]
            assert set(np.unique(high[:, :ONE_HOT])) <= {0.0, 1.0}
            assert (high[:, :ONE_HOT].sum(axis=1) == 6).all()
            worst = max(worst, np.abs(session_features(time, number, vectors) - high[:, ONE_HOT:]).max())
            low = request_features(time, number, vectors)
            worst = max(worst, np.abs(low - rows["state_low"][t]).max())
            rewards.append(want.mean())
    assert found == set(log), "%d users are not in the dataset" % len(set(log) - found)
    assert worst < 2e-5, "something differs by %g" % worst
    print("users %s; rows %d; p75 %.4f h; mean over users of mean reward %.6f; largest difference %.1e" % (
        {s: len(dataset.trajectories(s)) for s in SPLITS},
        sum(len(r) for r in log.values()), p75 / 3600, np.mean(rewards), worst))


if __name__ == "__main__":
    main()
