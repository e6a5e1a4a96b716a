#!/usr/bin/env python3
"""Holds `longhaul step` against resact.py, and resact.py against itself.

    test_step.py PROGRAM MODE [-v] [CASE...]

    one         all that comes out of one step
    hundred     and of 100 consecutive ones, Adam's state kept between
    placement   not a bit depends on the number of workers and servers
    refusals    broken cases end with one clear line and leave nothing behind
    reference   resact.py's gradients are the central differences of its losses

Ends with 77 where numpy is missing. -v prints what was measured.
"""
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("skipped: numpy is missing (Debian: python3-numpy; scripts/setup.sh --tests)")
    sys.exit(77)

import resact
import step_cases

FOLDERS = ("loss", "metric", "grad", "param_after", "target_after")
STEPS = 100

# Relative errors of a tensor. "moved" is what a step changed, small beside the weights themselves:
# where a gradient is nothing but rounding, Adam makes a whole step of it.
ONE = dict.fromkeys(FOLDERS, 1e-5)
ONE["moved"] = 5e-3
# After 100 steps single precision itself has drifted: resact.py in float32 tells how far.
HUNDRED = dict.fromkeys(FOLDERS, 1e-3)
HUNDRED["moved"] = 1e-2
DRIFT_FACTOR, DRIFT_FLOOR = 20, 2e-5


def off_by(x, want):
    """Relative error of a tensor, by the Euclidean norm."""
    size, error = np.linalg.norm(want), np.linalg.norm(x - want)
    return error / size if size > 0 else error


def call(program, case, out, steps=1, *more):
    return subprocess.run([program, "step", "--case", case, "--out", out, "--steps", str(steps),
                           *more], capture_output=True, text=True)


def read_out(out):
    return {folder: resact.read_arrays(os.path.join(out, folder)) for folder in FOLDERS}


def run(program, case, out, steps=1, *more):
    done = call(program, case, out, steps, *more)
    if done.returncode != 0:
        sys.exit("%s: %s" % (case, done.stderr.strip()))
    return read_out(out)


class Comparison:
    def __init__(self, name, case):
        self.name, self.case, self.worst, self.failures = name, case, {}, []

    def pairs(self, got, want):
        """(what, name, got, want) of everything to compare."""
        for folder, arrays in want.items():
            for name, w in sorted(arrays.items()):
                yield folder, name, got[folder].get(name), w
            for name in sorted(set(got[folder]) - set(arrays)):
                self.failures.append("%s/%s is not in the reference" % (folder, name))
        for before, folder in ((self.case.params, "param_after"),
                               (self.case.targets, "target_after")):
            for name, w in before.items():
                if name in got[folder]:
                    yield ("moved", "%s/%s" % (folder, name), got[folder][name] - w,
                           want[folder][name] - w)

    def hold(self, got, want, bounds, single=None):
        allowed = {}
        if single:
            allowed = {(what, name): max(DRIFT_FLOOR, DRIFT_FACTOR * off_by(x, w))
                       for what, name, x, w in self.pairs(single, want)}
        for what, name, x, w in self.pairs(got, want):
            if x is None or np.shape(x) != np.shape(w):
                self.failures.append("%s/%s: %s, expected shape %s" % (
                    what, name, "missing" if x is None else "shape %s" % (x.shape,), w.shape))
                continue
            off = off_by(x, w)
            bound = min(bounds[what], allowed.get((what, name), np.inf)) \
                if what != "moved" else bounds[what]
            self.worst[what] = max(self.worst.get(what, (0, "")), (off, name))
            if not off < bound:
                self.failures.append("%s/%s is off by %.2g, allowed %.2g"
                                     % (what, name, off, bound))

    def report(self, verbose):
        if verbose or self.failures:
            print("%-26s %s" % (self.name, "  ".join(
                "%s %.1e" % (what, self.worst[what][0]) for what in self.worst)))
        for failure in self.failures:
            print("  FAILED: " + failure)
        return not self.failures


def check_one(program, name, verbose):
    with tempfile.TemporaryDirectory() as top:
        directory = os.path.join(top, "case")
        step_cases.write(directory, name)
        got, case = run(program, directory, os.path.join(top, "out")), resact.Case(directory)
    c = Comparison(name, case)
    c.hold(got, case.run(), ONE)
    return c.report(verbose)


def check_hundred(program, name, verbose):
    with tempfile.TemporaryDirectory() as top:
        directory = os.path.join(top, "case")
        step_cases.write(directory, name, STEPS)
        got = run(program, directory, os.path.join(top, "out"), STEPS)
        case = resact.Case(directory, STEPS)
        single = resact.Case(directory, STEPS, np.float32)
    c, want, single = Comparison(name, case), case.run(), single.run()
    c.hold(got, want, HUNDRED, single)
    return c.report(verbose)


# --- placement ----------------------------------------------------------------------------------
def same_files(a, b):
    different = []
    for folder in FOLDERS:
        names = sorted(set(os.listdir(os.path.join(a, folder))) |
                       set(os.listdir(os.path.join(b, folder))))
        _, mismatch, errors = filecmp.cmpfiles(os.path.join(a, folder), os.path.join(b, folder),
                                               names, shallow=False)
        different += ["%s/%s" % (folder, name) for name in mismatch + errors]
    return different


def check_placement(program, name, verbose):
    with tempfile.TemporaryDirectory() as top:
        directory = os.path.join(top, "case")
        first, second = os.path.join(top, "1"), os.path.join(top, "2")
        step_cases.write(directory, name, 7)
        run(program, directory, first, 7)
        run(program, directory, second, 7, "--workers", "3", "--servers", "4")
        different = same_files(first, second)
    if verbose or different:
        print("%-26s %s" % (name, "differs: %s" % different if different else "the same bits"))
    return not different


# --- broken cases -------------------------------------------------------------------------------
def path(case, name):
    return os.path.join(case, name + ".npy")


def change(case, name, f):
    np.save(path(case, name), f(np.load(path(case, name))))


def put(array, index, value):
    array = array.astype(np.float64)
    array[index] = value
    return array


def cut_off(case, name, n):
    with open(path(case, name), "r+b") as f:
        f.truncate(os.path.getsize(path(case, name)) - n)


def lie(case, name, old, new):
    with open(path(case, name), "rb") as f:
        data = f.read()
    assert old in data and len(old) == len(new)
    with open(path(case, name), "wb") as f:
        f.write(data.replace(old, new, 1))


def configure(case, text):
    with open(os.path.join(case, "config.yaml"), "a", encoding="utf-8") as f:
        f.write(text)


# what is wrong: (how to break a good resact case, words of the line, exit status[, steps])
REFUSALS = {
    "no case": (shutil.rmtree, ["config.yaml", "No such file"], 4),
    "no config": (lambda c: os.remove(os.path.join(c, "config.yaml")),
                  ["config.yaml", "No such file"], 4),
    "unknown key": (lambda c: configure(c, "seeed: 1\n"), ["config.yaml:5", "did you mean 'seed'"], 3),
    "no batch array": (lambda c: os.remove(path(c, "batch/s_l_next")),
                       ["batch/s_l_next.npy", "is missing", "(24, 7)"], 4),
    "no noise": (lambda c: os.remove(path(c, "noise/h_next")),
                 ["noise/h_next.npy", "is missing", "(24, 4)"], 4),
    "no weight": (lambda c: os.remove(path(c, "param/critic.2.1.bias")),
                  ["param/critic.2.1.bias.npy", "is missing", "(12,)"], 4),
    "no target": (lambda c: os.remove(path(c, "target/actor.sub.2.weight")),
                  ["target/actor.sub.2.weight.npy", "is missing", "(3, 12)"], 4),
    "rows that differ": (lambda c: change(c, "batch/s_h", lambda x: x[:-1]),
                         ["batch/s_h.npy", "(23, 5)", "(24, 5)"], 3),
    "noise of another width": (lambda c: change(c, "noise/c_pi", lambda x: x[:, 1:]),
                               ["noise/c_pi.npy", "(24, 5)", "(24, 6)"], 3),
    "transposed weight": (lambda c: change(c, "param/actor.low.0.weight",
                                           lambda x: np.ascontiguousarray(x.T)),
                          ["param/actor.low.0.weight.npy", "(7, 16)", "(16, 7)"], 3),
    "one number": (lambda c: change(c, "batch/a", lambda x: x[0, 0]),
                   ["batch/a.npy", "shape ()", "(B, width)"], 3),
    "no rows": (lambda c: change(c, "batch/a", lambda x: x[:0]), ["batch/a.npy", "(0, 3)"], 3),
    "nan": (lambda c: change(c, "batch/r", lambda x: put(x, 5, np.nan)),
            ["batch/r.npy", "element 5", "nan"], 3),
    "too large for a float": (lambda c: change(c, "param/reward.0.bias",
                                               lambda x: put(x, 2, 1e300)),
                              ["param/reward.0.bias.npy", "element 2", "1e+300"], 3),
    "a class too many": (lambda c: change(c, "batch/r_class", lambda x: put(x, 3, 5)),
                         ["batch/r_class.npy", "row 3", "0 to 4"], 3),
    "half a class": (lambda c: change(c, "batch/r_class", lambda x: put(x, 3, 0.5)),
                     ["batch/r_class.npy", "row 3", "0 to 4"], 3),
    "half done": (lambda c: change(c, "batch/done", lambda x: put(x, 7, 0.5)),
                  ["batch/done.npy", "row 7", "0 or 1"], 3),
    "rewards without classes": (lambda c: os.remove(path(c, "batch/r_class")),
                                ["param/reward.2.bias.npy", "(5,)", "(2,)"], 3),
    "text in numbers' place": (lambda c: change(c, "batch/a", lambda x: x.astype(str)),
                               ["batch/a.npy", "float32, float64 or int64"], 3),
    "int32": (lambda c: change(c, "batch/done", lambda x: x.astype(np.int32)),
              ["batch/done.npy", "<i4"], 3),
    "fortran order": (lambda c: change(c, "batch/s_h", np.asfortranarray),
                      ["batch/s_h.npy", "Fortran"], 3),
    "not an array file": (lambda c: shutil.copy(os.path.join(c, "config.yaml"),
                                                path(c, "batch/s_l")),
                          ["batch/s_l.npy", "not a .npy file"], 3),
    "cut off": (lambda c: cut_off(c, "param/critic.1.0.weight", 5),
                ["param/critic.1.0.weight.npy", "cut off"], 3),
    "lying header": (lambda c: lie(c, "batch/s_l", b"(24, 7)", b"(99, 9)"),
                     ["batch/s_l.npy", "3564 bytes", "672"], 3),
    "steps that do not divide": (lambda c: None, ["24 rows", "5 steps"], 3, 5),
    "divergence": (lambda c: change(c, "param/critic.1.2.bias", lambda x: put(x, 0, 1e30)),
                   ["critic.1", "diverged"], 7),
}


def refuse(program, top, what):
    spoil, words, status, *steps = REFUSALS[what]
    case, out = os.path.join(top, "case"), os.path.join(top, "out")
    step_cases.write(case, "resact")
    spoil(case)
    done = call(program, case, out, *steps)
    lines = done.stderr.strip().split("\n")
    left = sorted(set(os.listdir(top)) - {"case"})
    if done.returncode == status and len(lines) == 1 and not left and not done.stdout and \
            all(word in lines[0] for word in words):
        return lines[0], True
    return "exit %d, left %s, said: %s%s" % (done.returncode, left, done.stdout, done.stderr), False


def refuse_foreign_out(program, top):
    """A directory that no step wrote is left alone; an earlier OUT, or an empty one, is replaced."""
    case, out = os.path.join(top, "case"), os.path.join(top, "out")
    step_cases.write(case, "il")
    os.makedirs(os.path.join(out, "precious"))
    done = call(program, case, out)
    if done.returncode != 4 or "not replaced" not in done.stderr or os.listdir(out) != ["precious"]:
        return "exit %d: %s" % (done.returncode, done.stderr), False
    os.rmdir(os.path.join(out, "precious"))
    run(program, case, out)
    os.remove(path(out, "loss/rec"))
    run(program, case, out)
    there = sorted(os.listdir(out))
    fine = there == sorted(FOLDERS) and os.path.exists(path(out, "loss/rec"))
    return "%s" % there if not fine else done.stderr.strip(), fine


def check_refusal(program, what, verbose):
    with tempfile.TemporaryDirectory() as top:
        said, fine = (refuse_foreign_out(program, top) if what == "foreign out"
                      else refuse(program, top, what))
    if verbose or not fine:
        print("%s%-26s %s" % ("" if fine else "FAILED: ", what, said.replace(top + "/", "")))
    return fine


# --- the reference itself -----------------------------------------------------------------------
def objective(case, net, params, delta):
    """What the parameters of a network descend: the losses of Algorithm 1 that reach it. J has no
    path to the decoder through the residual, which is held."""
    step = case.step_of(0, params, case.targets, delta)
    c, loss = case.config, dict({"j": 0, "kl": 0, "exp": 0, "con": 0}, **step.losses)
    j, exp, con = (c[w] * loss[k] for w, k in
                   (("weight_j", "j"), ("weight_exp", "exp"), ("weight_con", "con")))
    return {"cvae.encoder": loss["rec"] + c["weight_kl"] * loss["kl"],
            "cvae.decoder": loss["rec"] + j,
            "actor.high": j + exp + con, "actor.low": j, "actor.sub": j,
            "critic.1": loss.get("td1"), "critic.2": loss.get("td2"), "reward": exp}[net]


def slope(case, tensor, way, h, delta):
    net, w = tensor.rsplit(".", 2)[0], case.params[tensor]
    up, down = (objective(case, net, dict(case.params, **{tensor: w + sign * h * way}), delta)
                for sign in (1, -1))
    return (up - down) / (2 * h)


def check_reference(_, name, verbose):
    rng, worst = np.random.default_rng(3), (0, "")
    with tempfile.TemporaryDirectory() as top:
        step_cases.write(top, name)
        case = resact.Case(top)
    step = case.step_of(0, case.params, case.targets)
    for tensor, w in case.params.items():
        delta = step.delta if tensor.startswith("cvae.decoder") and case.is_resact() else None
        grad = np.reshape(step.grads[tensor], w.shape)
        for _ in range(2):
            way = rng.standard_normal(w.shape)
            scale = max(np.linalg.norm(grad) * np.linalg.norm(way) / np.sqrt(w.size), 1e-6)
            # the nearer of two: a kink may lie within one of them
            off = min(abs(slope(case, tensor, way, h, delta) - (grad * way).sum())
                      for h in (1e-6, 1e-7))
            worst = max(worst, (off / scale, tensor))
    if verbose or worst[0] >= 1e-5:
        print("%-26s off by %.1e (%s)" % ((name,) + worst))
    return worst[0] < 1e-5


def main(argv):
    verbose = "-v" in argv
    argv = [a for a in argv if a != "-v"]
    cases = list(step_cases.CASES)
    small = [name for name in cases if name != "resact_large"]
    modes = {"one": (check_one, cases), "hundred": (check_hundred, cases),
             "placement": (check_placement, ["resact_uneven", "il_cvae"]),
             "refusals": (check_refusal, list(REFUSALS) + ["foreign out"]),
             "reference": (check_reference, small)}
    if len(argv) < 3 or argv[2] not in modes:
        sys.exit(__doc__)
    check, names = modes[argv[2]]
    names = argv[3:] or names
    passed = [check(argv[1], name, verbose) for name in names]
    print("%d of %d hold" % (sum(passed), len(names)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
