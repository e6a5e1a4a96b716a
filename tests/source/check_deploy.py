#!/usr/bin/env python3
"""Holds what cluster/ has for Slurm, systemd and Kubernetes against its checkers and against the program: shell
scripts parse, systemd-analyze and kubectl accept units and manifests, and every option of longhaul that they use exists.

    check_deploy.py LONGHAUL SOURCES
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

bad = []


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout.strip()


def accept(what, code, text, wanted=""):
    if code or (wanted is not None and text != wanted):
        bad.append("%s: %s" % (what, text or "exit status %d" % code))


def units(longhaul, paths):
    """systemd-analyze warns of an unknown key with exit status 0, so it must say nothing at all."""
    if not shutil.which("systemd-analyze"):
        print("no systemd-analyze: units are not verified")
        return
    with tempfile.TemporaryDirectory() as work:
        for path in paths:
            with open(path) as f:
                text = f.read().replace("/usr/bin/longhaul", longhaul)
            text = re.sub(r"(?m)^User=.*\n", "", text)  # it is made on the host
            with open(os.path.join(work, os.path.basename(path).replace("@", "@1")), "w") as f:
                f.write(text)
        accept("systemd-analyze", *run("systemd-analyze", "verify", *glob.glob(work + "/*.service")))


def manifests(directory):
    if not shutil.which("kubectl"):
        print("no kubectl: manifests are not verified")
        return
    code, text = run("kubectl", "kustomize", directory)
    accept("kubectl kustomize", code, text, None)
    listed = set(re.findall(r"[\w-]+\.yaml", open(directory + "/kustomization.yaml").read()))
    for path in glob.glob(directory + "/*.yaml"):
        if os.path.basename(path) not in listed | {"kustomization.yaml"}:
            bad.append("%s: not named in kustomization.yaml" % path)


def options(longhaul, paths):
    """Options behind `longhaul COMMAND`, in shell or as a list of YAML."""
    pages = {}
    found = 0
    for path in paths:
        with open(path) as f:
            text = f.read().replace("\\\n", " ").replace('"$longhaul"', "longhaul")
        for line in text.split("\n"):
            line = line.strip().lstrip("# ")
            m = re.search(r"(?:^|(?<!-n)[\s/\[])longhaul,? ([a-z]+)[ ,](.*)", line)
            if not m:
                continue
            command = m.group(1)
            if command not in pages:
                pages[command] = run(longhaul, "help", command)
            code, page = pages[command]
            if code:
                if "--" in m.group(2):
                    bad.append("%s: longhaul has no command '%s'" % (path, command))
                continue
            for option in re.findall(r"--[a-z][a-z-]*", m.group(2).split(" -- ")[0]):
                found += 1
                if not re.search(r"%s\b" % option, page):
                    bad.append("%s: 'longhaul %s' has no option %s" % (path, command, option))
    if found < 20:
        bad.append("only %d options were found: is this check blind?" % found)
    print("%d options of longhaul exist" % found)


def main():
    longhaul, top = (os.path.abspath(x) for x in sys.argv[1:3])
    cluster = os.path.join(top, "cluster")
    scripts = [p for p in glob.glob(cluster + "/slurm/*") if not p.endswith(".md")]
    for path in scripts:
        accept(path, *run("bash", "-n", path))
    services = glob.glob(cluster + "/systemd/*.service")
    units(longhaul, services)
    manifests(cluster + "/kubernetes")
    options(longhaul, scripts + services + glob.glob(cluster + "/kubernetes/*") + glob.glob(cluster + "/*/README.md"))
    sys.exit("\n".join(bad) if bad else 0)


if __name__ == "__main__":
    main()
