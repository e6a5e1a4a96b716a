#!/usr/bin/env python3
"""The scripts of cluster/slurm under a real Slurm with munge, started here on loopback: seeds as an array,
preemption, cancelling, a node that goes down, the daily chain. Weights must be those of an undisturbed run.

    test_slurm.py LONGHAUL SOURCES

Without Slurm's daemons, or without root, the exit status is 77, which ctest shows as skipped.
"""
import contextlib
import glob
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
PATIENCE = 90  # seconds that anything is waited for
CONF = """
ClusterName=longhaul
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={dir}/munge.socket,cred_expire=5
SlurmctldPort={ctld}
SlurmdPort={slurmd}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.log
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
MailProg=/bin/true
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def fail(*lines):
    sys.exit("\n".join(str(x) for x in lines))


def run(*command, check=True):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    if check and done.returncode:
        fail(" ".join(command), "exit status %d" % done.returncode, done.stdout)
    return done.stdout.strip()


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        got = condition()
        if got:
            return got
        time.sleep(0.1)
    fail("waited %d s in vain: %s" % (PATIENCE, what), *logs())


WORK = tempfile.mkdtemp(prefix="longhaul-slurm-")


def logs():
    for path in sorted(glob.glob(WORK + "/*.log") + glob.glob(WORK + "/slurm/*.log") + glob.glob(WORK + "/base/*/logs/*")):
        with open(path, errors="replace") as f:
            yield "--- %s\n%s" % (os.path.basename(path), "".join(f.readlines()[-25:]))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def stop(pid_file):
    with contextlib.suppress(OSError, ValueError):
        with open(pid_file) as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 15
        while time.monotonic() < end:
            os.kill(pid, 0)  # raises when it is gone
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def slurm():
    """One node with 4 CPUs, partitions low (preempted by requeueing) and high."""
    d = os.path.join(WORK, "slurm")
    os.makedirs(d + "/state")
    host = socket.gethostname().split(".")[0]
    with open(d + "/slurm.conf", "w") as f:
        f.write(CONF.format(host=host, dir=d, ctld=free_port(), slurmd=free_port()))
    with open(d + "/munge.key", "wb") as f:
        f.write(os.urandom(128))
    os.chmod(d + "/munge.key", 0o400)
    os.environ["SLURM_CONF"] = d + "/slurm.conf"
    try:
        run("munged", "--force", "--key-file=%s/munge.key" % d, "--socket=%s/munge.socket" % d,
            "--pid-file=%s/munged.pid" % d, "--log-file=%s/munged.log" % d, "--seed-file=%s/munged.seed" % d)
        run("slurmctld", "-c")
        run("slurmd", "-c")
        wait_for("a node that is idle", lambda: run("sinfo", "-h", "-o", "%T", check=False) == "idle")
        yield
    finally:
        subprocess.run(["scancel", "--user=root", "--signal=KILL"], stderr=subprocess.DEVNULL, timeout=30, check=False)
        subprocess.run(["scancel", "--user=root"], stderr=subprocess.DEVNULL, timeout=30, check=False)
        for daemon in "slurmd", "slurmctld", "munged":
            stop("%s/%s.pid" % (d, daemon))
        # a step of a node that was down may outlive its daemon
        subprocess.run(["pkill", "-KILL", "-f", WORK], check=False)


def sbatch(*arguments):
    return run("sbatch", "--parsable", "--output", WORK + "/%x-%j.log", *arguments)


def state(job):
    return run("squeue", "-h", "-j", job, "-o", "%T", check=False) if job else ""


def field(job, name):
    for word in run("scontrol", "show", "job", job).split():
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
    return None


def ended(*jobs):
    for job in jobs:
        wait_for("job %s ends" % job, lambda: field(job, "JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"))
    return [field(job, "JobState") for job in jobs]


def cuts(run_dir):
    """Versions of the cuts that a run lists."""
    with contextlib.suppress(OSError, ValueError):
        with open(run_dir + "/run.json") as f:
            return [c["version"] for c in json.load(f)["cuts"]]
    return []


class Study:
    def __init__(self, longhaul, sources):
        self.longhaul, self.slurm = longhaul, os.path.join(sources, "cluster/slurm")
        os.environ["LONGHAUL"] = longhaul
        run(longhaul, "simulate", "--out", WORK + "/log", "--users", "600", "--quiet")
        self.schema = WORK + "/log/schema.yaml"
        run(longhaul, "import", self.schema, "--out", WORK + "/dataset", "--quiet")
        self.job = WORK + "/job.yaml"
        shutil.copy(os.path.join(sources, "scripts/recipes/demo/job.yaml"), self.job)

    def train(self, *options, into, sbatch_options=()):
        return sbatch(*sbatch_options, self.slurm + "/train.sbatch", self.job, into, "--set",
                      "dataset=" + WORK + "/dataset", "--quiet", *options)

    def weights(self, run_dir):
        out = WORK + "/exported"
        run(self.longhaul, "export", "--dir", run_dir, "--out", out, "--cut", "last", "--force")
        with open(out + "/weights.safetensors", "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    # long enough to be caught at any machine's speed: an end is set once the disturbance has been seen
    LONG = ["--no-evaluation", "--set", "train.batch=1024", "--set", "network.hidden=[256, 256]", "--set",
            "checkpoint.every=10", "--set", "train.steps=%d"]

    def long(self, steps):
        return self.LONG[:-1] + [self.LONG[-1] % steps]

    def disturbed(self, steps):
        """A run is preempted by a job of a better partition; another is on a node that goes down; a third
        is killed; a fourth is cancelled and submitted again. All end with the weights of one that was left alone."""
        run(self.longhaul, "train", self.job, "--dir", WORK + "/alone", "--workers", "2", "--quiet", "--set",
            "dataset=" + WORK + "/dataset", *self.long(steps))
        want = self.weights(WORK + "/alone")

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

    @staticmethod
    def gone(into):
        wait_for("all processes of the job are gone",
                 lambda: subprocess.run(["pgrep", "-f", into], stdout=subprocess.DEVNULL, check=False).returncode)

    @staticmethod
    def resumed(what, job, into, hurry):
        """Waits until a requeued job runs again. Slurm lets it wait until its credentials have expired (5 s here);
        `hurry` starts it at once, which fails where a node has just come back."""
        before = cuts(into)
        wait_for("%s: the job waits" % what, lambda: state(job) == "PENDING" or int(field(job, "Restarts")) > 0)
        if hurry:
            run("scontrol", "update", "jobid=" + job, "StartTime=now", check=False)
        wait_for("%s: the job runs again" % what, lambda: int(field(job, "Restarts")) > 0 and state(job) != "PENDING")
        if not before:
            fail("%s: no cut to go on from" % what, *logs())

    def same(self, what, run_dir, want):
        got = self.weights(run_dir)
        if got != want:
            fail("%s changed the weights: %s, undisturbed %s" % (what, got, want), *logs())
        print("%s: same weights" % what)

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


def main():
    longhaul, sources = (os.path.abspath(x) for x in sys.argv[1:3])
    missing = [x for x in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(x)]
    if missing or os.geteuid() != 0:
        print("skipped: needs root and %s" % (", ".join(missing) or "Slurm"))
        sys.exit(SKIPPED)
    try:
        with slurm():
            study = Study(longhaul, sources)
            study.refuses()
            study.daily()
            study.disturbed(int(os.environ.get("LONGHAUL_TEST_STEPS", "200")))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()
