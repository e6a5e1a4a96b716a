"""A real Slurm with munge for the tests of cluster/slurm, started by them: of one node on loopback, or of several,
each a network namespace with a host name of its own."""
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
WORK = tempfile.mkdtemp(prefix="longhaul-slurm-")
CONF = """
ClusterName=longhaul
SlurmctldHost={host}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={dir}/munge.socket,cred_expire=5
SlurmctldPort={ctld}
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
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
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
where = []  # what runs a command where slurmctld is reached; nothing: here


def fail(*lines):
    sys.exit("\n".join(str(x) for x in lines))


def run(*command, check=True):
    done = subprocess.run(where + list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
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


def conf(host, address, nodes):
    d = os.path.join(WORK, "slurm")
    os.makedirs(d + "/state")
    with open(d + "/slurm.conf", "w") as f:
        f.write(CONF.format(host=host, address=address, dir=d, ctld=free_port(), nodes=nodes))
    with open(d + "/munge.key", "wb") as f:
        f.write(os.urandom(128))
    os.chmod(d + "/munge.key", 0o400)
    os.environ["SLURM_CONF"] = d + "/slurm.conf"
    return d


@contextlib.contextmanager
def daemons(d, nodes):
    """slurmctld on the first of `nodes`, {name: what runs a command there}, slurmd on each."""
    try:
        subprocess.run(["munged", "--force", "--key-file=%s/munge.key" % d, "--socket=%s/munge.socket" % d,
                        "--pid-file=%s/munged.pid" % d, "--log-file=%s/munged.log" % d,
                        "--seed-file=%s/munged.seed" % d], check=True, timeout=PATIENCE)
        subprocess.run(next(iter(nodes.values())) + ["slurmctld", "-c"], check=True, timeout=PATIENCE)
        for there in nodes.values():
            subprocess.run(there + ["slurmd", "-c"], check=True, timeout=PATIENCE)
        wait_for("nodes that are idle",
                 lambda: run("sinfo", "-h", "-N", "-p", "low", "-o", "%T", check=False).split() == ["idle"] * len(nodes))
        yield
    finally:
        run("scancel", "--user=root", "--signal=KILL", check=False)
        run("scancel", "--user=root", check=False)
        for daemon in ["slurmd-" + n for n in nodes] + ["slurmctld", "munged"]:
            stop("%s/%s.pid" % (d, daemon))
        # a step of a node that was down may outlive its daemon
        subprocess.run(["pkill", "-KILL", "-f", WORK], check=False)


@contextlib.contextmanager
def one_node():
    """With 4 CPUs; partitions low (preempted by requeueing) and high."""
    host = socket.gethostname().split(".")[0]
    node = "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\nSlurmdPort=%d\nNodeName=%s NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000"
    with daemons(conf(host, "127.0.0.1", node % (free_port(), host)), {host: []}):
        yield


def shell(script):
    subprocess.run(["sh", "-ec", script], check=True, timeout=PATIENCE)


@contextlib.contextmanager
def several_nodes(n):
    """With 2 CPUs each, 10.79.0.1 and so on, on a switch in a namespace of its own: this machine's network is not touched."""
    switch = "lhs%d-s" % os.getpid()
    names = ["lhs%d-%d" % (os.getpid(), i + 1) for i in range(n)]
    there = {x: ["nsenter", "--net=/run/netns/" + x, "unshare", "-u", "sh", "-c", 'hostname "$0"; exec "$@"', x] for x in names}
    try:
        shell("ip netns add {0}; ip -n {0} link add br0 type bridge; ip -n {0} link set br0 up".format(switch))
        for i, x in enumerate(names):
            shell("ip netns add {1}; ip -n {1} link set lo up; ip -n {0} link add p{2} type veth peer name eth0 netns {1};"
                  "ip -n {0} link set p{2} master br0 up; ip -n {1} addr add 10.79.0.{2}/24 dev eth0;"
                  "ip -n {1} link set eth0 up".format(switch, x, i + 1))
        where[:] = there[names[0]]
        nodes = "\n".join("NodeName=%s NodeAddr=10.79.0.%d CPUs=2 RealMemory=4000" % (x, i + 1) for i, x in enumerate(names))
        with daemons(conf(names[0], "10.79.0.1", nodes), there):
            yield names
    finally:
        where.clear()
        for x in names + [switch]:
            subprocess.run("for p in $(ip netns pids %s); do kill -KILL $p; done; ip netns del %s" % (x, x), shell=True,
                           stderr=subprocess.DEVNULL, check=False)


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
    """A log, a dataset, a job, and trainings of it."""

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

    # with cuts as soon as possible, and an end that no machine reaches before it is disturbed
    LONG = ["--no-evaluation", "--set", "train.batch=1024", "--set", "network.hidden=[256, 256]", "--set",
            "checkpoint.every=10", "--set", "train.steps=%d"]

    def long(self, steps):
        return self.LONG[:-1] + [self.LONG[-1] % steps]

    def alone(self, steps):
        """The weights of a long run that nobody disturbs."""
        run(self.longhaul, "train", self.job, "--dir", WORK + "/alone", "--workers", "2", "--quiet", "--set",
            "dataset=" + WORK + "/dataset", *self.long(steps))
        return self.weights(WORK + "/alone")

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


def main(needed, body):
    missing = [x for x in needed if not shutil.which(x)]
    if missing or os.geteuid() != 0:
        print("skipped: needs root and %s" % (", ".join(missing) or "Slurm"))
        sys.exit(SKIPPED)
    try:
        body(*(os.path.abspath(x) for x in sys.argv[1:3]))
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


os.environ["PATH"] += ":/usr/sbin:/sbin"
