#!/usr/bin/env python3
"""Holds the pages to the tree: what they name is there, what is there is named, and every module has its test.

1. Links of all pages resolve; files, functions and types named in `code` exist, and so do the files in pictures.
2. Each source file is named on the page of its folder (README.md, there or further up). Tests are found by their
   names and need no line.
3. Each product module has a test of its name (test_<module>, or test_<name> for cmd_<name>.c), or a line in the table
   under "Modules without a test of their own" in tests/README.md; each unit test has a module.
"""
import glob
import os
import re
import sys

FOLDERS = ["proto", "common", "ps", "worker", "cluster", "scripts", "tests"]
PRODUCT = ["common", "ps", "worker", "cluster"]
NO_MODULE = {"vecmath": "common/vecmath.h", "algo_grad": "worker/algo.h"}  # tests of what is no one source
bad = []


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def files_below(folder):
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(d for d in folders if d not in ("corpus", "__pycache__"))
        yield from (os.path.join(at, n) for n in sorted(names) if not n.endswith(".pyc"))


def expand(name):
    """`arena.[ch]` is arena.c and arena.h."""
    m = re.fullmatch(r"(.*)\.\[(\w+)\]", name)
    return [m[1] + "." + c for c in m[2]] if m else [name]


def exists(page, name):
    if any(c in name for c in "*<>"):
        return True  # a pattern
    at = os.path.dirname(page)
    places = [at, "", "tests"] + PRODUCT + ["proto"] + (glob.glob(at + "/*/") if "/" not in name else [])
    return all(any(os.path.exists(os.path.join(p, n)) for p in places) for n in expand(name))


def sections(page):
    """The anchors of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", read(page), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads}


def check_pictures(pictures):
    for picture in pictures:
        for name in re.findall(r"\b(?:%s)/\w+\.\w+" % "|".join(FOLDERS), read(picture)):
            if not os.path.exists(name):
                bad.append("%s: names %s, which is not there" % (picture, name))


def check_names(pages, source):
    known = set(re.findall(r"\b[lL][hH]_\w+", source))
    ours = re.compile(r"(?:(?:%s)/[\w./*\[\]<>-]+|[\w/*<>-]+\.(?:\[ch\]|[ch]|inc|proto|sh|py))" % "|".join(FOLDERS))
    for page in pages:
        text = read(page)
        for link, section in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
            target = os.path.normpath(os.path.join(os.path.dirname(page), link)) if link else page
            if not os.path.exists(target) or (section and section not in sections(target)):
                bad.append("%s: the link to %s%s leads nowhere" % (page, link, section and "#" + section))
        for code in re.findall(r"`([^`\n]+)`", text):
            if ours.fullmatch(code) and not exists(page, code):
                bad.append("%s: names %s, which is not there" % (page, code))
            for name in re.findall(r"\b(?:lh|LH)_\w+\b", code):
                if name not in known:
                    bad.append("%s: names %s, which no source knows" % (page, name))


def check_files(folder):
    named = {}
    for path in files_below(folder):
        base = os.path.basename(path)
        if re.fullmatch(r".*\.(md|svg)|(test|fuzz)_\w+\.(c|py)", base):
            continue
        if re.fullmatch(r"scripts/recipes/[^/]+/(schema\.yaml|job\.yaml|run\.sh)", path):
            continue  # what each recipe is made of
        at = os.path.dirname(path)
        while at and not os.path.exists(os.path.join(at, "README.md")):
            at = os.path.dirname(at)
        if not at:
            bad.append("%s: no page tells what its files are" % folder)
            return
        page = os.path.join(at, "README.md")
        if page not in named:
            named[page] = set()
            for word in re.findall(r"[\w./@\[\]-]+", read(page)):
                for name in expand(word.rstrip(".")):
                    named[page].update((name, os.path.basename(name)))
        if base not in named[page]:
            bad.append("%s: not named in %s" % (path, page))


def check_tests():
    page = "tests/README.md"
    m = re.search(r"^#+ Modules without a test of their own\n(.*?)(?=^#|\Z)", read(page), re.M | re.S)
    elsewhere = {}
    for cells in re.findall(r"^\| (`.*?) \| (.*?) \|", m[1] if m else "", re.M):
        for module in re.findall(r"`([\w.]+)`", cells[0]):
            elsewhere[module] = re.findall(r"`([\w./]+)`", cells[1])
    tests = {os.path.basename(p)[5:].rsplit(".", 1)[0] for p in glob.glob("tests/*/test_*.*")}
    modules = {os.path.basename(p): p for f in PRODUCT for p in glob.glob(f + "/*.c")}
    for base, path in sorted(modules.items()):
        stem = base[:-2]
        own = {stem, stem[4:] if stem.startswith("cmd_") else stem} & tests
        if own and base in elsewhere:
            bad.append("%s: has the test test_%s, and a line in %s says it has none" % (path, own.pop(), page))
        if not own and base not in elsewhere:
            bad.append("%s: no test_%s, and no line in %s says what tests it" % (path, stem, page))
    for base, where in sorted(elsewhere.items()):
        if base not in modules:
            bad.append("%s: says what tests %s, which is not there" % (page, base))
        for name in where or [""]:
            if not os.path.isfile(os.path.join("tests", name)):
                bad.append("%s: %s is tested in %s, which is not there" % (page, base, name))
    for path in glob.glob("tests/unit/test_*.c"):
        stem = os.path.basename(path)[5:-2]
        if stem + ".c" not in modules and not os.path.exists(NO_MODULE.get(stem, "-")):
            bad.append("%s: there is no module %s" % (path, stem))


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    everything = [p for f in FOLDERS for p in files_below(f)]
    pages = ["README.md"] + [p for p in everything if p.endswith(".md")]
    source = "\n".join(read(p) for p in everything + ["CMakeLists.txt"] if re.search(r"\.([ch]|inc|txt)$", p))
    check_names(pages, source)
    check_pictures(p for p in everything if p.endswith(".svg"))
    for folder in FOLDERS:
        check_files(folder)
    check_tests()
    print("\n".join(bad) or "pages: all names stand")
    sys.exit(bool(bad))


main()
