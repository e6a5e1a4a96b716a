#!/usr/bin/env python3
"""Values snapshots by ResAct's Eq. 15 from their files and a dataset's alone: weights, normalisation, partitions.

    check_evaluation.py DATASET BEHAVIOUR SPLIT CAP SNAPSHOT…

Prints a JSON line a snapshot. Independent of longhaul, in double: Algorithm 2 with latents of its own, the behaviour
model's residual RMS on the validation users, capped weights, the mean over trajectories. So `il`, and ResAct without a
CVAE, must be worth what `longhaul evaluate` says to rounding; others are as far off as another seed of execution.
"""
import json
import os
import re
import sys

import numpy as np

from partitions import Dataset
from read_safetensors import load

ROWS = 4096  # at a time


def network(weights, name, x, last="linear"):
    k = 0
    while "%s.%d.weight" % (name, k) in weights:
        x = np.maximum(x, 0) if k else x
        weight, bias = (weights["%s.%d.%s" % (name, k, part)].astype(np.float64) for part in ("weight", "bias"))
        x = x @ weight.T + bias.reshape(-1)
        k += 1
    return np.tanh(x) if last == "tanh" else x


class Policy:
    def __init__(self, directory):
        self.name = os.path.basename(os.path.normpath(directory))
        self.weights = load(os.path.join(directory, "weights.safetensors"))
        with open(os.path.join(directory, "manifest.json")) as f:
            manifest = json.load(f)
        self.algorithm, self.norm = manifest["algorithm"], manifest["normalisation"]
        with open(os.path.join(directory, "config.yaml")) as f:
            objective = f.read().split("\nobjective:\n")[1]
        self.config = dict(re.findall(r"(\w+): (\S+)", re.split(r"\n\w", objective)[0]))
        self.last = "tanh" if self.config["bound"] == "clip" else "linear"
        self.random, self.chosen = np.random.default_rng(1), []

    def scaled(self, part, x):
        return (x - np.array(self.norm[part]["shift"])) * np.array(self.norm[part]["scale"])

    def decode(self, s, cvae):
        latent = self.weights["cvae.decoder.0.weight"].shape[1] - s.shape[1]
        c = [self.random.standard_normal((len(s), latent))] if cvae else []
        return network(self.weights, "cvae.decoder", np.hstack([s] + c), self.last)

    def improve(self, h, low, s):
        """Algorithm 2."""
        cvae, clip = self.config["cvae"] == "true", self.last == "tanh"
        z_high = network(self.weights, "actor.high", h)
        z_high = z_high[:, : z_high.shape[1] // 2]
        z = np.hstack([z_high, network(self.weights, "actor.low", low)])
        best = best_q = None
        for _ in range(int(self.config["estimators"]) if cvae else 1):
            a = self.decode(s, cvae)
            delta = network(self.weights, "actor.sub", np.hstack([z, a]), self.last)
            a = np.clip(a + float(self.config["residual_scale"]) * delta, -1, 1) if clip else a + delta
            q = network(self.weights, "critic.1", np.hstack([s, a]))
            best = a if best is None else np.where(q > best_q, a, best)
            best_q = q if best_q is None else np.maximum(q, best_q)
        self.chosen.append(best_q)
        return best

    def act(self, rows, first):
        """Raw actions for raw states."""
        h, low = (self.scaled(part, rows[name][first : first + ROWS].astype(np.float64))
                  for part, name in (("high", "state_high"), ("low", "state_low")))
        s = np.hstack([h, low])
        a = self.improve(h, low, s) if self.algorithm == "resact" else self.decode(s, self.algorithm == "il_cvae")
        return a / np.array(self.norm["action"]["scale"]) + np.array(self.norm["action"]["shift"])

    def actions(self, rows):
        return np.vstack([self.act(rows, first) for first in range(0, len(rows["reward"]), ROWS)])


def value(dataset, split, policy, behaviour, cap):
    scale = np.array(policy.norm["action"]["scale"])
    rows, held_out = dataset.split[split], dataset.split["validation"]
    sigma = np.sqrt((((held_out["action"] - behaviour.actions(held_out)) * scale) ** 2).mean(axis=0))
    pi, beta = ((((rows["action"] - p.actions(rows)) * scale / sigma) ** 2).sum(axis=1) for p in (policy, behaviour))
    weight = np.minimum(cap, np.exp(0.5 * (beta - pi)))
    reward = rows["reward"].astype(np.float64)
    trajectories = dataset.trajectories(split)
    values = np.array([(weight[t] * reward[t]).sum() / weight[t].sum() for t in trajectories])
    own = np.array([reward[t].mean() for t in trajectories])

    def half(x):
        return 1.959963984540054 * x.std(ddof=1) / np.sqrt(len(x))

    return {
        "policy": policy.name,
        "value": values.mean(), "lo": values.mean() - half(values), "hi": values.mean() + half(values),
        "difference": (values - own).mean(),
        "difference_lo": (values - own).mean() - half(values - own),
        "ess_share": weight.sum() ** 2 / (weight ** 2).sum() / len(weight),
        "mean_distance": np.sqrt(pi / rows["action"].shape[1]).mean(),
        "q": np.vstack(policy.chosen).mean() if policy.chosen else None,
    }


def main():
    directory, behaviour, split, cap = sys.argv[1:5]
    dataset = Dataset(directory)
    for snapshot in sys.argv[5:]:
        print(json.dumps(value(dataset, split, Policy(snapshot), Policy(behaviour), float(cap))))


if __name__ == "__main__":
    main()
