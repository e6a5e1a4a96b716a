"""The training step of ResAct in PyTorch, as well as one can write it there, to be timed beside ours.

    peer_pytorch.py --batch N --threads N --seconds S [--transitions N]

Prints one JSON line: {"batch", "threads", "blas_threads", "steps", "seconds", "transitions_per_s"}.
Same networks, losses, gradients, Adam and soft updates as worker/algo_resact.c, in float32, on data
that lie in memory, already normalised. What PyTorch offers is used: one backward for all losses (the
critic that the policy climbs takes part with detached weights), Adam and the soft update as
multi-tensor operations, gradients freed rather than zeroed, no synchronisation, no logging.

--start waits until that time (seconds since 1970) before the timed part, so that two of them run at
once. OPENBLAS_NUM_THREADS must be set before the start."""

import argparse
import json
import os
import time

import torch
from torch.nn import functional as F

S_HIGH, S_LOW, ACTION, LATENT, Z, HIDDEN, CLASSES = 32, 64, 32, 64, 64, 256, 5
GAMMA, TAU, PHI, LOG_STD = 0.9, 1e-2, 0.1, (-4.0, 15.0)


class Mlp:
    def __init__(self, inputs, outputs):
        widths = [inputs, HIDDEN, HIDDEN, outputs]
        self.params = []
        for i, o in zip(widths, widths[1:]):
            bound = i**-0.5
            self.params.append(torch.empty(o, i).uniform_(-bound, bound).requires_grad_())
            self.params.append(torch.empty(o).uniform_(-bound, bound).requires_grad_())
        self.frozen = [p.detach() for p in self.params]  # shares memory

    def __call__(self, x, params=None):
        w1, b1, w2, b2, w3, b3 = params or self.params
        x = F.linear(x, w1, b1).relu_()
        x = F.linear(x, w2, b2).relu_()
        return F.linear(x, w3, b3)


NETS = {
    "encoder": (S_HIGH + S_LOW + ACTION, 2 * LATENT),
    "decoder": (S_HIGH + S_LOW + LATENT, ACTION),
    "high": (S_HIGH, 2 * Z),
    "low": (S_LOW, Z),
    "sub": (2 * Z + ACTION, ACTION),
    "critic1": (S_HIGH + S_LOW + ACTION, 1),
    "critic2": (S_HIGH + S_LOW + ACTION, 1),
    "reward": (Z, CLASSES),
}
TARGETS = ["decoder", "high", "low", "sub", "critic1", "critic2"]


class Step:
    def __init__(self, data, batch):
        self.data, self.batch = data, batch
        self.net = {k: Mlp(*v) for k, v in NETS.items()}
        self.target = {k: [p.detach().clone() for p in self.net[k].params] for k in TARGETS}
        group = lambda names, lr: {"params": [p for n in names for p in self.net[n].params], "lr": lr}
        self.adam = torch.optim.Adam(
            [group(["encoder", "decoder", "reward", "critic1", "critic2"], 5e-5), group(["high", "low", "sub"], 5e-6)],
            foreach=True,
        )
        self.live = [p.detach() for k in TARGETS for p in self.net[k].params]
        self.copies = [p for k in TARGETS for p in self.target[k]]

    def gauss(self, out):
        mean, log_std = out.chunk(2, dim=1)
        return mean, log_std.clamp(*LOG_STD)

    def sample(self, mean, log_std):
        return torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))

    def kl(self, mean, log_std):
        return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1).mean()

    def policy(self, sh, sl, s, of):
        run = lambda name, x: self.net[name](x, self.target[name] if of == "target" else None)
        mean, log_std = self.gauss(run("high", sh))
        z = self.sample(mean, log_std)
        a_on = run("decoder", torch.cat([s, torch.randn(len(s), LATENT)], 1)).tanh()
        delta = PHI * run("sub", torch.cat([z, run("low", sl), a_on.detach()], 1)).tanh()
        return (a_on + delta).clamp(-1, 1), mean, log_std, z

    def __call__(self):
        rows = torch.randint(len(self.data["sh"]), (self.batch,))
        sh, sl, a, r, k, live, sh2, sl2 = (
            self.data[n].index_select(0, rows) for n in ("sh", "sl", "a", "r", "k", "live", "sh2", "sl2")
        )
        net, target = self.net, self.target
        s, s2 = torch.cat([sh, sl], 1), torch.cat([sh2, sl2], 1)
        sa = torch.cat([s, a], 1)
        # the logged policy
        mean, log_std = self.gauss(net["encoder"](sa))
        c = self.sample(mean, log_std)
        rec = (net["decoder"](torch.cat([s, c], 1)).tanh() - a).square().sum(1).mean()
        kl = self.kl(mean, log_std)
        # twin critics
        with torch.no_grad():
            a2 = self.policy(sh2, sl2, s2, "target")[0]
            sa2 = torch.cat([s2, a2], 1)
            q2 = torch.minimum(net["critic1"](sa2, target["critic1"]), net["critic2"](sa2, target["critic2"]))
            y = torch.addcmul(r, live, q2, value=GAMMA)
        td1 = F.mse_loss(net["critic1"](sa), y)
        td2 = F.mse_loss(net["critic2"](sa), y)
        # the policy climbs the first
        action, h_mean, h_log_std, z = self.policy(sh, sl, s, "live")
        j = -net["critic1"](torch.cat([s, action], 1), net["critic1"].frozen).mean()
        # what z_h should say
        exp = F.cross_entropy(net["reward"](z), k)
        con = self.kl(h_mean, h_log_std)
        self.adam.zero_grad(set_to_none=True)
        (rec + kl + td1 + td2 + j + 0.05 * exp + 0.5 * con).backward()
        self.adam.step()
        torch._foreach_mul_(self.copies, 1 - TAU)
        torch._foreach_add_(self.copies, self.live, alpha=TAU)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--batch", type=int, required=True)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--transitions", type=int, default=200000)
    p.add_argument("--start", type=float, default=0)
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    n = o.transitions
    data = {
        "sh": torch.randn(n, S_HIGH), "sl": torch.randn(n, S_LOW), "a": torch.randn(n, ACTION).clamp(-1, 1),
        "k": torch.randint(CLASSES, (n,)), "live": torch.ones(n, 1),
    }
    data["r"] = data["k"].float().unsqueeze(1)
    data["sh2"], data["sl2"] = data["sh"].roll(-1, 0), data["sl"].roll(-1, 0)
    step = Step(data, o.batch)
    for _ in range(3):
        step()
    while time.time() < o.start:
        time.sleep(0.001)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < o.seconds:
        step()
        steps += 1
    seconds = time.perf_counter() - began
    print(json.dumps({
        "batch": o.batch, "threads": o.threads, "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", ""),
        "steps": steps, "seconds": round(seconds, 3), "transitions_per_s": round(steps * o.batch / seconds, 1),
    }))


if __name__ == "__main__":
    main()
