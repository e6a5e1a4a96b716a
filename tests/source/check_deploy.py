#!/usr/bin/env python3
"""Holds what cluster/ has for Slurm, systemd and Kubernetes against its checkers and against the program: shell
scripts parse, systemd-analyze and kubectl accept units and manifests, what manifests name of each other is there, the
image has the libraries of the program, and every option of longhaul that they use exists.

    check_deploy.py LONGHAUL SOURCES
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import yaml
except ImportError:
    yaml = None

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


def documents(paths):
    """All of YAML's, as (path, document); a key that stands twice is a mistake that loaders pass over."""
    class Once(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [loader.construct_object(k, deep=True) for k, _ in node.value]
        for key in {k for k in keys if keys.count(k) > 1}:
            bad.append("%s: %s stands twice" % (node.start_mark, key))
        return loader.construct_mapping(node, deep=True)

    Once.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for path in paths:
        with open(path) as f:
            for document in yaml.load_all(f, Once):
                yield path, document


def pods(found):
    """(where, labels, pod's spec, selector) of all that makes pods."""
    for path, d in found:
        template = d.get("spec", {}).get("template")
        if template:
            yield ("%s: %s %s" % (path, d["kind"], d["metadata"]["name"]), template["metadata"]["labels"], template["spec"],
                   d["spec"].get("selector", {}).get("matchLabels"))


def agreement(directory):
    """What manifests say of each other: labels, ports, volumes, how many servers and which keys."""
    found = list(documents(p for p in glob.glob(directory + "/*.yaml") if os.path.basename(p) not in ("job.yaml", "kustomization.yaml")))
    for path, d in found:
        if not all((d.get("apiVersion"), d.get("kind"), d.get("metadata", {}).get("name"))):
            bad.append("%s: a document without apiVersion, kind or name" % path)
    made = list(pods(found))
    for where, labels, spec, selector in made:
        if selector is not None and not selector.items() <= labels.items():
            bad.append("%s: selects %s, its pods are %s" % (where, selector, labels))
        mounted = {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", [])}
        if mounted != {v["name"] for v in spec.get("volumes", [])}:
            bad.append("%s: mounts %s of %s" % (where, mounted, [v["name"] for v in spec.get("volumes", [])]))
    ports = {p["containerPort"] for _, _, spec, _ in made for c in spec["containers"] for p in c.get("ports", [])}
    for path, d in found:
        if d["kind"] == "Service":
            behind = [{p["containerPort"] for c in spec["containers"] for p in c.get("ports", [])}
                      for _, labels, spec, _ in made if d["spec"]["selector"].items() <= labels.items()]
            if len(behind) != 1 or not {p["port"] for p in d["spec"]["ports"]} <= behind[0]:
                bad.append("%s: Service %s: no pod of one kind behind it listens there" % (path, d["metadata"]["name"]))
        if d["kind"] == "NetworkPolicy":
            let_in = {p["port"] for rule in d["spec"]["ingress"] for p in rule["ports"]}
            if let_in != ports:
                bad.append("%s: lets in %s, pods listen at %s" % (path, sorted(let_in), sorted(ports)))
        if d["kind"] == "StatefulSet":
            n = d["spec"]["replicas"]
            keys = [i["key"] for v in d["spec"]["template"]["spec"]["volumes"] for i in v.get("secret", {}).get("items", [])]
            if keys != ["server-%d.keys" % i for i in range(n)]:
                bad.append("%s: %d servers with keys %s" % (path, n, keys))
            if not re.search(r"--servers %d\b" % n, open(directory + "/scheduler.yaml").read()):
                bad.append("scheduler.yaml: waits for another number of servers than %d" % n)
    print("%d manifests agree" % len(found))


def job(longhaul, path):
    """Its keys are read before the dataset is missed."""
    code, text = run(longhaul, "train", path, "--dir", tempfile.gettempdir() + "/longhaul-no-run")
    if not code or "/data/dataset" not in text:
        bad.append("%s: %s" % (path, text))


def image(longhaul, path):
    """Each library's package is installed in it, by dpkg's word."""
    if not shutil.which("dpkg"):
        print("no dpkg: the image's libraries are not verified")
        return
    with open(path) as f:
        packages = set(re.findall(r"\blib[a-z0-9.-]+", f.read()))
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", longhaul)[1])
    files = dict(re.findall(r"(\S+) => (\S+)", run("ldd", longhaul)[1]))
    for name in needed:
        code, text = run("dpkg", "-S", os.path.realpath(files.get(name, name)))
        package = text.split(":")[0]
        if not code and package not in packages:
            bad.append("%s: lacks %s, which has %s" % (path, package, name))


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
    if yaml:
        agreement(cluster + "/kubernetes")
    else:
        print("no PyYAML: manifests are not read")
    job(longhaul, cluster + "/kubernetes/job.yaml")
    image(longhaul, cluster + "/kubernetes/Dockerfile")
    options(longhaul, scripts + services + glob.glob(cluster + "/kubernetes/*") + glob.glob(cluster + "/*/README.md"))
    sys.exit("\n".join(bad) if bad else 0)


if __name__ == "__main__":
    main()
