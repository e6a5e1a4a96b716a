#!/usr/bin/env python3
"""The scripts of cluster/slurm under a real Slurm with munge, of one node on loopback (slurmkit.py): seeds as an array,
preemption, the time limit, cancelling, a node that goes down, the daily chain. Weights must be those of an undisturbed run.

    test_slurm.py LONGHAUL SOURCES

Without Slurm's daemons, or without root, the exit status is 77, which ctest shows as skipped.
"""
import json
import os
import signal

from slurmkit import WORK, Study, cuts, ended, fail, field, logs, main, one_node, run, sbatch, state, wait_for


class OneNode(Study):
    def limited(self, steps, want):
        """A run whose time limit is near as soon as it begins. Slurm looks every 30 s: meanwhile the run is held, for
        longer than roles wait for each other unless told to."""
        into = WORK + "/limited"
        job = self.train(*self.long(steps), "--set", "cluster.deadline_seconds=600", into=into,
                         sbatch_options=["--time=5", "--signal=B:USR1@300"])
        wait_for("the run begins", lambda: os.path.exists(into + "/run.json"))
        held = int(run("pgrep", "-f", "^%s train .*%s" % (self.longhaul, into)))
        os.kill(held, signal.SIGSTOP)

        def signalled():
            with open("/proc/%d/status" % held) as f:
                pending = next(x for x in f if x.startswith("ShdPnd:")).split()[1]
            return int(pending, 16) >> (signal.SIGUSR1 - 1) & 1

        wait_for("the signal before the time limit", signalled)
        os.kill(held, signal.SIGCONT)
        wait_for("a cut", lambda: cuts(into))
        self.resumed("the time limit", job, into, hurry=False)
        if ended(job) != ["COMPLETED"] or "checkpoint cut; back into the queue" not in "".join(logs()):
            fail("after the time limit: " + field(job, "JobState"), *logs())
        self.same("the time limit", into, want)

    def disturbed(self, steps, want):
        """A run is preempted by a job of a better partition; another is on a node that goes down; a third
        is killed; a fourth is cancelled and submitted again. All end with the weights of one that was left alone."""
        into = WORK + "/preempted"
        job = self.train(*self.long(steps), into=into, sbatch_options=["--cpus-per-task=2", "--exclusive"])
        wait_for("a first cut", lambda: cuts(into))
        other = sbatch("--partition=high", "--exclusive", "--wrap", "sleep 1")
        self.resumed("preemption", job, into, hurry=True)
        if ended(other, job) != ["COMPLETED", "COMPLETED"]:
            fail("after preemption: %s, %s" % (field(other, "JobState"), field(job, "JobState")), *logs())
        self.same("preemption", into, want)
        if "checkpoint cut; back into the queue" not in "".join(logs()):
            fail("it did not leave by itself", *logs())

        into = WORK + "/down"
        job = self.train(*self.long(steps), into=into)
        node = wait_for("a node", lambda: state(job) == "RUNNING" and cuts(into) and field(job, "NodeList"))
        run("scontrol", "update", "nodename=" + node, "state=down", "reason=test")
        wait_for("the job is requeued", lambda: state(job) in ("PENDING", "CONFIGURING"))
        self.gone(into)  # one that is started while the last one is still being put away fails at once
        run("scontrol", "update", "nodename=" + node, "state=resume", check=False)  # it may be back by itself
        self.resumed("the node's loss", job, into, hurry=False)
        if ended(job) != ["COMPLETED"]:
            fail("after a node's loss: " + field(job, "JobState"), *logs())
        self.same("the node's loss", into, want)

        into = WORK + "/killed"
        job = self.train(*self.long(steps), into=into)
        wait_for("a first cut", lambda: cuts(into))
        run("pkill", "-KILL", "-f", "^%s .*%s" % (self.longhaul, into))
        if ended(job) != ["COMPLETED"] or "exit status 137; going on" not in "".join(logs()):
            fail("killed: " + field(job, "JobState"), *logs())
        self.same("a kill", into, want)

        into = WORK + "/cancelled"
        job = self.train(*self.long(steps), into=into)
        wait_for("a first cut", lambda: cuts(into))
        run("scancel", job)
        if ended(job) != ["CANCELLED"]:
            fail("cancelled: " + field(job, "JobState"), *logs())
        self.gone(into)
        if "%s: interrupted at step" % into not in "".join(logs()):
            fail("a cancelled run did not leave cleanly", *logs())
        if ended(self.train(*self.long(steps), into=into)) != ["COMPLETED"]:
            fail("a cancelled run did not go on", *logs())
        self.same("a cancelled run", into, want)

    def daily(self):
        """Days: a policy that left the log is not promoted; an array of seeds, the best of which is; a day
        whose import fails leaves that policy alone."""
        base = WORK + "/base"
        hasty = ["--", "--set", "train.steps=60", "--set", "checkpoint.every=30", "--set", "objective.weight_j=10"]
        last = run(self.slurm + "/daily", self.schema, self.job, base, "--day", "2025-12-31", "--seeds", "1",
                   "--cpus", "1", *hasty)
        if ended(last) != ["FAILED"] or os.listdir(base + "/policies"):
            fail("a policy that left the log: %s, %s" % (field(last, "JobState"), os.listdir(base + "/policies")), *logs())
        small = ["--", "--set", "train.steps=400", "--set", "checkpoint.every=200", "--set", "algorithm=il"]
        last = run(self.slurm + "/daily", self.schema, self.job, base, "--day", "2026-01-01", "--seeds", "1-2",
                   "--cpus", "1", *small)
        if ended(last) != ["COMPLETED"]:
            fail("the first day: " + field(last, "JobState"), *logs())
        for seed in 1, 2:
            with open("%s/2026-01-01/runs/seed-%d/run.json" % (base, seed)) as f:
                if json.load(f)["state"] != "finished":
                    fail("seed %d did not finish" % seed)
        if self.weights(base + "/2026-01-01/runs/seed-1") == self.weights(base + "/2026-01-01/runs/seed-2"):
            fail("both tasks of the array trained one seed")
        current = os.readlink(base + "/policies/current")
        if current != "2026-01-01":
            fail("current is " + current)
        self.highest(base)

        # the next day's logs are broken: the chain falls away behind the import
        os.makedirs(WORK + "/broken")
        with open(WORK + "/broken/log-0.csv", "w") as f:
            f.write("no,such,columns\n1,2,3\n")
        last = run(self.slurm + "/daily", self.schema, self.job, base, "--day", "2026-01-02", "--data",
                   WORK + "/broken", "--seeds", "1", "--after", last, *small)
        if ended(last) != ["CANCELLED"]:
            fail("the broken day: " + field(last, "JobState"), *logs())
        if os.readlink(base + "/policies/current") != current:
            fail("a broken day replaced the policy")
        if sorted(os.listdir(base + "/policies")) != ["2026-01-01", "current"]:
            fail("left behind: %s" % os.listdir(base + "/policies"))
        print("daily: promoted, and kept on a broken day")

    def highest(self, base):
        """The promoted policy is the seed with the highest value on validation."""
        values = {}
        for seed in 1, 2:
            run_dir = "%s/2026-01-01/runs/seed-%d" % (base, seed)
            out = json.loads(run(self.longhaul, "export", "--dir", run_dir, "--out", WORK + "/exported", "--force", "--json"))
            with open(WORK + "/exported/weights.safetensors", "rb") as f:
                values[f.read()] = out["evaluation"]["policy"]["value"]
        with open(base + "/policies/current/weights.safetensors", "rb") as f:
            promoted = f.read()
        if values[promoted] != max(values.values()):
            fail("promoted %s of %s" % (values[promoted], sorted(values.values())))

    def refuses(self):
        """What is wrong on the way in is said in one line."""
        job = sbatch(self.slurm + "/train.sbatch", self.job)
        if ended(job) != ["FAILED"] or "what to train, and where to?" not in "".join(logs()):
            fail("without a run directory: %s" % field(job, "JobState"), *logs())
        job = self.train("--set", "no.such.key=1", into=WORK + "/refused")
        if ended(job) != ["FAILED"] or field(job, "ExitCode") != "3:0":
            fail("an unknown key: %s %s" % (field(job, "JobState"), field(job, "ExitCode")), *logs())
        print("refused as it should be")


def body(longhaul, sources):
    with one_node():
        study = OneNode(longhaul, sources)
        steps = int(os.environ.get("LONGHAUL_TEST_STEPS", "200"))
        want = study.alone(steps)
        study.refuses()
        study.limited(steps, want)
        study.daily()
        study.disturbed(steps, want)


if __name__ == "__main__":
    main(("munged", "slurmctld", "slurmd", "sbatch"), body)
