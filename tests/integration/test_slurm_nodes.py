#!/usr/bin/env python3
"""cluster/slurm/train.sbatch over several nodes of a real Slurm (slurmkit.py): mpirun in the allocation, its daemons
started by Slurm. A run that is told to leave and is requeued, one that loses a rank, and one that is cancelled and
submitted again must all end with the weights of the local launcher.

    test_slurm_nodes.py LONGHAUL SOURCES

Without Slurm's daemons, mpirun, or root, the exit status is 77, which ctest shows as skipped.
"""
import contextlib
import os
import signal

from slurmkit import WORK, Study, cuts, ended, fail, field, logs, main, run, several_nodes, wait_for

SHAPE = ["--nodes=3", "--ntasks-per-node=2", "--cpus-per-task=1"]  # a scheduler, two servers, three workers


def ranks(into):
    """{rank: (process, network namespace)} of a run."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/%s/cmdline" % pid) as f:
                words = f.read().split("\0")
            with open("/proc/%s/environ" % pid) as f:
                here = dict(x.partition("=")[::2] for x in f.read().split("\0"))
            if words[1:2] == ["train"] and into in words and "OMPI_COMM_WORLD_RANK" in here:
                found[int(here["OMPI_COMM_WORLD_RANK"])] = int(pid), os.readlink("/proc/%s/ns/net" % pid)
    return found


class Nodes(Study):
    def begin(self, into, steps):
        job = self.train(*self.long(steps), into=into, sbatch_options=SHAPE)
        wait_for("a first cut", lambda: cuts(into))
        return job

    def finishes(self, what, job, into, want, says):
        if ended(job) != ["COMPLETED"]:
            fail("%s: %s" % (what, field(job, "JobState")), *logs())
        if says not in "".join(logs()):
            fail("%s: nothing of '%s'" % (what, says), *logs())
        self.same(what, into, want)

    def all(self, steps):
        want = self.alone(steps)
        into = WORK + "/told"
        job = self.begin(into, steps)
        found = ranks(into)
        if sorted(found) != list(range(6)) or len({net for _, net in found.values()}) != 3:
            fail("ranks are not on three nodes: %s" % found, *logs())
        run("scancel", "--batch", "--signal=USR1", job)
        self.resumed("a signal ahead of the end", job, into, hurry=False)
        self.finishes("a signal ahead of the end", job, into, want, "checkpoint cut; back into the queue")

        into = WORK + "/lost"
        job = self.begin(into, steps)
        os.kill(ranks(into)[5][0], signal.SIGKILL)
        self.finishes("a lost rank", job, into, want, "going on from the last checkpoint")

        into = WORK + "/cancelled"
        job = self.begin(into, steps)
        run("scancel", job)
        if ended(job) != ["CANCELLED"]:
            fail("cancelled: " + field(job, "JobState"), *logs())
        self.gone(into)
        self.finishes("a cancelled run", self.begin(into, steps), into, want, "")


def body(longhaul, sources):
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with several_nodes(3):
        Nodes(longhaul, sources).all(int(os.environ.get("LONGHAUL_TEST_STEPS", "200")))


if __name__ == "__main__":
    main(("munged", "slurmctld", "slurmd", "sbatch", "mpirun", "ip", "nsenter"), body)
