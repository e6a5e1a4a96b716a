#!/usr/bin/env python3
"""An independent ResAct, IL and IL_CVAE: losses, gradients and optimiser steps in double.

Written from the paper (Algorithm 1, Eq. 2 to 14) with gradients derived by hand, and from nothing of
the C program but the layout of a case, which README.md tells:

    resact.py CASE OUT [STEPS]

A squared error and every KL are summed over dimensions and averaged over the batch. All gradients
are taken at one snapshot of the parameters.
"""
import os
import re
import sys

import numpy as np

DEFAULTS = {
    "algorithm": "resact", "gamma": 0.9, "weight_exp": 0.05, "weight_con": 0.5, "weight_kl": 1.0,
    "weight_j": 1.0, "cvae": True, "bound": "none", "residual_scale": 0.1, "log_std_lo": -4.0, "log_std_hi": 15.0,
    "lr_actor": 5e-6, "lr_critic": 5e-5, "lr_cvae": 5e-5, "lr_reward": 5e-5, "beta1": 0.9,
    "beta2": 0.999, "epsilon": 1e-8, "tau": 0.01, "actor_period": 1, "target_period": 1,
}


def scalar(text):
    text = text.strip().strip("'\"")
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text


def read_config(path):
    """The keys used here are unique over all sections of a job, so sections need no reading."""
    config = dict(DEFAULTS)
    with open(path, encoding="utf-8") as f:
        text = re.sub(r"#.*", "", f.read())
    for key, value in re.findall(r"(\w+):[ \t]+([^\s,{}\[\]]+)", text):
        if key in config:
            config[key] = scalar(value)
    return config


def read_arrays(directory, dtype=np.float64):
    if not os.path.isdir(directory):
        return {}
    return {name[:-4]: np.load(os.path.join(directory, name)).astype(dtype)
            for name in sorted(os.listdir(directory)) if name.endswith(".npy")}


def write_arrays(directory, arrays):
    os.makedirs(directory, exist_ok=True)
    for name, value in arrays.items():
        np.save(os.path.join(directory, name + ".npy"), np.asarray(value, dtype=np.float64))


class Net:
    """An MLP `name`: ReLU between layers, then nothing or tanh. Keeps what backward needs."""

    def __init__(self, params, name, last="linear"):
        self.name, self.last, self.layers = name, last, []
        while "%s.%d.weight" % (name, len(self.layers)) in params:
            k = len(self.layers)
            self.layers.append((params["%s.%d.weight" % (name, k)],
                                params["%s.%d.bias" % (name, k)].reshape(-1)))

    def forward(self, x):
        self.inputs = []
        for k, (weight, bias) in enumerate(self.layers):
            self.inputs.append(x)
            x = x @ weight.T + bias
            if k + 1 < len(self.layers):
                x = np.maximum(x, 0)
        self.out = np.tanh(x) if self.last == "tanh" else x
        return self.out

    def backward(self, d_out, grads=None):
        """d loss / d input; adds d loss / d parameters to grads unless it is None (frozen)."""
        d = d_out * (1 - self.out ** 2) if self.last == "tanh" else d_out
        for k in reversed(range(len(self.layers))):
            x, weight = self.inputs[k], self.layers[k][0]
            if grads is not None:
                for suffix, g in (("weight", d.T @ x), ("bias", d.sum(axis=0))):
                    key = "%s.%d.%s" % (self.name, k, suffix)
                    grads[key] = grads.get(key, 0) + g
            d = d @ weight
            if k > 0:
                d = d * (x > 0)
        return d


class Gauss:
    """N(mean, exp(log_std)) from a network's output; log_std clamped."""

    def __init__(self, out, lo, hi):
        half = out.shape[1] // 2
        self.mean, raw = out[:, :half], out[:, half:]
        self.log_std = np.clip(raw, lo, hi)
        self.inside = (raw >= lo) & (raw <= hi)
        self.std = np.exp(self.log_std)

    def sample(self, noise):
        return self.mean + self.std * noise

    def kl(self):
        return 0.5 * (self.mean ** 2 + self.std ** 2 - 1 - 2 * self.log_std).sum(axis=1)

    def backward_sample(self, d_z, noise):
        return np.hstack([d_z, d_z * noise * self.std * self.inside])

    def backward_kl(self, scale):
        return scale * np.hstack([self.mean, (self.std ** 2 - 1) * self.inside])


class Step:
    """One step's losses and gradients. `delta`: the policy's residual, where it is to be held."""

    def __init__(self, config, batch, noise, params, targets, delta=None):
        self.c, self.n, self.p, self.t, self.held = config, noise, params, targets, delta
        self.b = {key: x.reshape(-1, 1) if key in ("r", "done", "r_class") else x
                  for key, x in batch.items()}
        self.rows = len(batch["a"])
        self.s = np.hstack([batch["s_h"], batch["s_l"]])
        self.clip = config["bound"] == "clip"
        self.losses, self.metrics, self.grads = {}, {}, {}

    def gauss(self, out):
        return Gauss(out, self.c["log_std_lo"], self.c["log_std_hi"])

    def decoder(self, params):
        return Net(params, "cvae.decoder", "tanh" if self.clip else "linear")

    def reconstruct(self, cvae):
        """Eq. 3, or Eq. 2 without a latent."""
        s, a, dec = self.s, self.b["a"], self.decoder(self.p)
        if not cvae:
            diff = dec.forward(s) - a
            self.metrics["action"] = np.sqrt((dec.out ** 2).sum(axis=1)).mean()
            dec.backward(2 * diff / self.rows, self.grads)
        else:
            enc = Net(self.p, "cvae.encoder")
            q = self.gauss(enc.forward(np.hstack([s, a])))
            diff = dec.forward(np.hstack([s, q.sample(self.n["c_enc"])])) - a
            self.metrics["action"] = np.sqrt((dec.out ** 2).sum(axis=1)).mean()
            d_c = dec.backward(2 * diff / self.rows, self.grads)[:, s.shape[1]:]
            enc.backward(q.backward_sample(d_c, self.n["c_enc"])
                         + q.backward_kl(self.c["weight_kl"] / self.rows), self.grads)
            self.losses["kl"] = q.kl().mean()
        self.losses["rec"] = (diff ** 2).sum(axis=1).mean()

    def act(self, params, s_h, s_l, c, h, delta=None):
        """The policy of Eq. 4 with all its parts."""
        x = np.hstack([s_h, s_l])
        p = {"high": Net(params, "actor.high"), "low": Net(params, "actor.low"),
             "sub": Net(params, "actor.sub", "tanh" if self.clip else "linear"),
             "dec": self.decoder(params)}
        p["gauss"] = self.gauss(p["high"].forward(s_h))
        p["z_h"] = p["gauss"].sample(h)
        p["a_on"] = p["dec"].forward(np.hstack([x, c]) if self.c["cvae"] else x)
        z = np.hstack([p["z_h"], p["low"].forward(s_l), p["a_on"]])
        p["delta"] = p["sub"].forward(z) * (self.c["residual_scale"] if self.clip else 1)
        p["sum"] = p["a_on"] + (p["delta"] if delta is None else delta)
        p["action"] = np.clip(p["sum"], -1, 1) if self.clip else p["sum"]
        return p

    def critics(self):
        """Eq. 7."""
        b = self.b
        s2 = np.hstack([b["s_h_next"], b["s_l_next"]])
        a2 = self.act(self.t, b["s_h_next"], b["s_l_next"], self.n.get("c_next"),
                      self.n["h_next"])["action"]
        x2 = np.hstack([s2, a2])
        q2 = np.minimum(Net(self.t, "critic.1").forward(x2), Net(self.t, "critic.2").forward(x2))
        y = b["r"] + self.c["gamma"] * (1 - b["done"]) * q2
        for j in (1, 2):
            net = Net(self.p, "critic.%d" % j)
            diff = net.forward(np.hstack([self.s, b["a"]])) - y
            net.backward(2 * diff / self.rows, self.grads)
            self.losses["td%d" % j] = (diff ** 2).mean()
            if j == 1:
                self.metrics["q"] = net.out.mean()
        self.metrics["y"] = y.mean()

    def actor(self):
        """Eq. 5, 6, 8, 9: -Q1 over theta_d and theta_f; what f is given is a constant. And
        Eq. 12, 14 over the same draw of z_h."""
        p = self.act(self.p, self.b["s_h"], self.b["s_l"], self.n.get("c_pi"), self.n["h_pi"],
                     self.held)
        self.delta = p["delta"]
        critic = Net(self.p, "critic.1")
        q = critic.forward(np.hstack([self.s, p["action"]]))
        self.losses["j"] = -q.mean()
        d_a = critic.backward(np.full_like(q, -self.c["weight_j"] / self.rows))[:, self.s.shape[1]:]
        if self.clip:
            d_a = d_a * (np.abs(p["sum"]) <= 1)
        p["dec"].backward(d_a, self.grads)
        d_z = p["sub"].backward(d_a * (self.c["residual_scale"] if self.clip else 1), self.grads)
        width = p["z_h"].shape[1]
        p["low"].backward(d_z[:, width:width + p["low"].out.shape[1]], self.grads)
        d_h = d_z[:, :width] + self.expressiveness(p["z_h"])
        g = p["gauss"]
        self.losses["con"] = g.kl().mean()
        p["high"].backward(g.backward_sample(d_h, self.n["h_pi"])
                           + g.backward_kl(self.c["weight_con"] / self.rows), self.grads)
        self.metrics["residual"] = np.sqrt((p["delta"] ** 2).sum(axis=1)).mean()
        self.metrics["action"] = np.sqrt((p["action"] ** 2).sum(axis=1)).mean()

    def expressiveness(self, z_h):
        """Eq. 12; returns its gradient with respect to z_h. One column a class; two columns where
        rewards are not classes: mean and log standard deviation of a normal."""
        net = Net(self.p, "reward")
        out = net.forward(z_h)
        scale = self.c["weight_exp"] / self.rows
        if self.c["classes"]:
            top = out - out.max(axis=1, keepdims=True)
            log_prob = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
            hit = np.eye(out.shape[1], dtype=out.dtype)[self.b["r_class"][:, 0].astype(int)]
            self.losses["exp"] = -(log_prob * hit).sum(axis=1).mean()
            return net.backward(scale * (np.exp(log_prob) - hit), self.grads)
        o = self.gauss(out)
        u = (self.b["r"] - o.mean) / o.std
        self.losses["exp"] = (0.5 * u ** 2 + o.log_std + 0.5 * np.log(2 * np.pi)).mean()
        return net.backward(scale * np.hstack([-u / o.std, (1 - u ** 2) * o.inside]), self.grads)

    def run(self):
        algorithm = self.c["algorithm"]
        cvae = algorithm == "il_cvae" or (algorithm == "resact" and self.c["cvae"])
        self.reconstruct(cvae)
        if algorithm == "resact":
            self.critics()
            self.actor()


class Adam:
    """Kingma and Ba's Algorithm 1, one rate a family of tensors; then the soft update. A family that
    is updated every few steps skips the gradients between."""

    def __init__(self, config):
        self.c, self.m, self.v, self.updates, self.t = config, {}, {}, {}, 0

    def family(self, name):
        return name.split(".")[0]

    def update(self, name, w, g):
        b1, b2 = self.c["beta1"], self.c["beta2"]
        t = self.updates[name] = self.updates.get(name, 0) + 1
        self.m[name] = b1 * self.m.get(name, 0) + (1 - b1) * g
        self.v[name] = b2 * self.v.get(name, 0) + (1 - b2) * g * g
        m = self.m[name] / (1 - b1 ** t)
        v = self.v[name] / (1 - b2 ** t)
        return w - self.c["lr_" + self.family(name)] * m / (np.sqrt(v) + self.c["epsilon"])

    def step(self, params, targets, grads):
        self.t += 1
        after, moved = {}, dict(targets)
        for name, w in params.items():
            g = np.asarray(grads.get(name, np.zeros_like(w))).reshape(w.shape)
            period = self.c["actor_period"] if self.family(name) == "actor" else 1
            after[name] = self.update(name, w, g) if self.t % period == 0 else w
        if self.t % self.c["target_period"] == 0:
            tau = self.c["tau"]
            moved = {name: tau * after[name] + (1 - tau) * w for name, w in targets.items()}
        return after, moved


class Case:
    """A case read from its directory; arrays of batch and noise hold `steps` batches. All is
    computed in `dtype`: float32 tells what single precision costs."""

    def __init__(self, directory, steps=1, dtype=np.float64):
        self.config = read_config(os.path.join(directory, "config.yaml"))
        self.batch, self.noise, self.params, self.targets = (
            read_arrays(os.path.join(directory, name), dtype)
            for name in ("batch", "noise", "param", "target"))
        self.config["classes"] = self.config["algorithm"] == "resact" and "r_class" in self.batch
        self.steps = steps

    def is_resact(self):
        return self.config["algorithm"] == "resact"

    def step_of(self, k, params, targets, delta=None):
        rows = len(self.batch["a"]) // self.steps
        part = slice(k * rows, (k + 1) * rows)
        batch, noise = ({name: x[part] for name, x in arrays.items()}
                        for arrays in (self.batch, self.noise))
        step = Step(self.config, batch, noise, params, targets, delta)
        step.run()
        return step

    def run(self):
        """Losses and metrics of every step; gradient, parameters and targets of the last."""
        params, targets, adam = self.params, self.targets, Adam(self.config)
        out = {"loss": {}, "metric": {}}
        for k in range(self.steps):
            step = self.step_of(k, params, targets)
            for folder, values in (("loss", step.losses), ("metric", step.metrics)):
                for name, x in values.items():
                    out[folder].setdefault(name, []).append(x)
            out["grad"] = {name: np.asarray(g).reshape(params[name].shape)
                           for name, g in step.grads.items()}
            params, targets = adam.step(params, targets, step.grads)
        for folder in ("loss", "metric"):
            out[folder] = {name: np.array(x[0] if self.steps == 1 else x)
                           for name, x in out[folder].items()}
        return dict(out, param_after=params, target_after=targets)


def main(case, out, steps="1"):
    for folder, arrays in Case(case, int(steps)).run().items():
        write_arrays(os.path.join(out, folder), arrays)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: resact.py CASE OUT [STEPS]")
    main(*sys.argv[1:])
