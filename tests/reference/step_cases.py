"""Cases for `longhaul step`: a job, random arrays in the layout of README.md, all from one seed."""
import os

import numpy as np

SMALL = {"hidden": [16, 12], "latent": 6, "z_high": 4, "z_low": 3, "H": 5, "L": 7, "A": 3,
         "classes": 5}
# as large as the networks of the paper, over states and actions of a real log's width
LARGE = {"hidden": [256, 256], "latent": 64, "z_high": 64, "z_low": 64, "H": 32, "L": 64, "A": 32,
         "classes": 5}

# Large enough that a step moves every weight visibly; and the paper's own.
RATES = {"lr_actor": 1e-3, "lr_critic": 2e-3, "lr_cvae": 1.5e-3, "lr_reward": 3e-3, "tau": 0.1}
PAPER_RATES = {"lr_actor": 5e-6, "lr_critic": 5e-5, "lr_cvae": 5e-5, "lr_reward": 5e-5,
               "tau": 0.01}

# name: keys of the job, by section; sizes; B
CASES = {
    "resact": ({}, SMALL, 24),
    "resact_clip": ({"objective": {"bound": "clip", "residual_scale": 0.3, "gamma": 0.7}},
                    SMALL, 24),
    "resact_normal_rewards": ({"objective": {"bound": "none"}}, dict(SMALL, classes=0), 24),
    "resact_clamped": ({"objective": {"log_std_lo": -0.1, "log_std_hi": 0.2, "bound": "clip"}},
                       dict(SMALL, classes=0), 24),
    "resact_without_cvae": ({"objective": {"cvae": "false"}}, SMALL, 24),
    "resact_without_cvae_clip": ({"objective": {"cvae": "false", "bound": "clip"}}, SMALL, 24),
    "resact_without_exp": ({"objective": {"weight_exp": 0}}, SMALL, 24),
    "resact_without_con": ({"objective": {"weight_con": 0}}, SMALL, 24),
    "resact_weights": ({"objective": {"weight_exp": 1.5, "weight_con": 0.25, "weight_kl": 0.3,
                                      "weight_j": 0.4}}, SMALL, 24),
    "resact_delayed": ({"optimiser": {"actor_period": 3, "target_period": 2}}, SMALL, 24),
    # several micro-batches, the last one with rows to spare
    "resact_uneven": ({"train": {"batch": 64, "micro_batch": 8}}, SMALL, 37),
    "resact_large": ({"train": {"micro_batch": 32}, "optimiser": PAPER_RATES}, LARGE, 64),
    "il": ({"algorithm": "il"}, SMALL, 24),
    "il_clip": ({"algorithm": "il", "objective": {"bound": "clip"}}, SMALL, 24),
    "il_cvae": ({"algorithm": "il_cvae"}, SMALL, 24),
    "il_cvae_clip": ({"algorithm": "il_cvae",
                      "objective": {"bound": "clip", "weight_kl": 0.3}}, SMALL, 24),
}


def write_config(path, keys, sizes):
    job = {"algorithm": "resact", "seed": 5}
    sections = {"network": {k: sizes[k] for k in ("hidden", "latent", "z_high", "z_low")},
                "optimiser": dict(RATES)}
    for key, value in keys.items():
        if isinstance(value, dict):
            sections.setdefault(key, {}).update(value)
        else:
            job[key] = value
    with open(path, "w", encoding="utf-8") as f:
        for key, value in job.items():
            print("%s: %s" % (key, value), file=f)
        for section, values in sections.items():
            print("%s: {%s}" % (section, ", ".join("%s: %s" % kv for kv in values.items())), file=f)
    return job["algorithm"], sections.get("objective", {}).get("cvae") != "false"


def networks(algorithm, cvae, s):
    """Name: (input, output) of each network the job has."""
    state, latent = s["H"] + s["L"], s["latent"]
    cvae = algorithm == "il_cvae" or (algorithm == "resact" and cvae)
    nets = {"cvae.decoder": (state + latent * cvae, s["A"])}
    if cvae:
        nets["cvae.encoder"] = (state + s["A"], 2 * latent)
    if algorithm == "resact":
        nets["actor.high"] = (s["H"], 2 * s["z_high"])
        nets["actor.low"] = (s["L"], s["z_low"])
        nets["actor.sub"] = (s["z_high"] + s["z_low"] + s["A"], s["A"])
        nets["critic.1"] = nets["critic.2"] = (state + s["A"], 1)
        nets["reward"] = (s["z_high"], s["classes"] or 2)
    return nets


def draw_networks(rng, nets, hidden):
    arrays = {}
    for name, (first, last) in sorted(nets.items()):
        widths = [first] + hidden + [last]
        for k in range(len(widths) - 1):
            bound = 2 / np.sqrt(widths[k])
            arrays["%s.%d.weight" % (name, k)] = rng.uniform(-bound, bound,
                                                             (widths[k + 1], widths[k]))
            arrays["%s.%d.bias" % (name, k)] = rng.uniform(-bound, bound, widths[k + 1])
    return arrays


def save(directory, folder, arrays):
    os.makedirs(os.path.join(directory, folder), exist_ok=True)
    for name, x in arrays.items():
        np.save(os.path.join(directory, folder, name + ".npy"), x)


def write(directory, name, steps=1):
    """Writes the case `name` with `steps` batches."""
    keys, s, batch = CASES[name]
    rng = np.random.default_rng(abs(hash_of(name)))
    rows = batch * steps
    os.makedirs(directory, exist_ok=True)
    algorithm, cvae = write_config(os.path.join(directory, "config.yaml"), keys, s)
    r_class = rng.integers(0, s["classes"] or 5, rows)
    arrays = {
        "s_h": rng.standard_normal((rows, s["H"])),
        "s_l": rng.standard_normal((rows, s["L"])).astype(np.float32),
        "a": rng.uniform(-1, 1, (rows, s["A"])),
        "r": r_class - 1.0 + (0 if s["classes"] else rng.standard_normal(rows)),
        "s_h_next": rng.standard_normal((rows, s["H"])).astype(np.float32),
        "s_l_next": rng.standard_normal((rows, s["L"])),
        "done": (rng.uniform(size=rows) < 0.2).astype(np.int64),
        "r_class": r_class,
    }
    if not s["classes"]:
        del arrays["r_class"]
    save(directory, "batch", arrays)
    widths = {"c_enc": s["latent"], "c_pi": s["latent"], "h_pi": s["z_high"],
              "c_next": s["latent"], "h_next": s["z_high"]}
    save(directory, "noise", {k: rng.standard_normal((rows, n)) for k, n in widths.items()})
    nets = networks(algorithm, cvae, s)
    save(directory, "param", draw_networks(rng, nets, s["hidden"]))
    with_target = {k: n for k, n in nets.items()
                   if algorithm == "resact" and k not in ("cvae.encoder", "reward")}
    save(directory, "target", draw_networks(rng, with_target, s["hidden"]))


def hash_of(name):
    """The same in every process, unlike hash()."""
    return sum((i + 1) * ord(c) for i, c in enumerate(name))
