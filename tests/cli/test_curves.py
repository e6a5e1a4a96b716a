#!/usr/bin/env python3
"""scripts/curves on runs written by hand: what is drawn where, what is refused.

    test_curves.py CURVES
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

SVG = "{http://www.w3.org/2000/svg}"


def write_run(directory, algorithm, values, digest="a1", lines=True, unit=None, choose="value"):
    """values: (step, value, ess share). lines: in evaluations.jsonl, else only the last two, in run.json."""
    os.makedirs(directory)
    evaluations = [(step, {
        "policy": {"value": value, "lo": value - 0.5, "hi": value + 0.5, "trajectories": 50,
                   "ess_share": share, "collapsed": share < 0.1},
        "behaviour": {"value": 1.0},
        **({"unit": unit} if unit else {}),
    }) for step, value, share in values]
    with open(os.path.join(directory, "config.yaml"), "w") as f:
        f.write('algorithm: %s\nevaluation:\n  ess_floor: 0.1\n  choose: %s\nresolved:\n  dataset_digest: "%s"\n' % (algorithm, choose, digest))
    with open(os.path.join(directory, "run.json"), "w") as f:
        json.dump({"cuts": [{"version": s, "evaluation": e} for s, e in evaluations[-2:]]}, f)
    with open(os.path.join(directory, "metrics.jsonl"), "w") as f:
        f.writelines('{"step": %d, "q": %g}\n' % (i, i / 10) for i in range(1, 301))
        f.write('{"step": 301, "q')  # being written
    if lines:
        with open(os.path.join(directory, "evaluations.jsonl"), "w") as f:
            f.writelines('{"step": %d, "evaluation": %s}\n' % (s, json.dumps(e)) for s, e in evaluations)


def curves(*arguments):
    done = subprocess.run([sys.executable, sys.argv[1], *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


def points(element):
    return [tuple(map(float, p.split(","))) for p in element.get("points").split()]


def test_drawing(work):
    a, b, c = (os.path.join(work, n) for n in ("a", "b", "c"))
    write_run(a, "resact", [(100, 1.0, 0.3), (200, 1.2, 0.2), (300, 1.4, 0.05)])
    write_run(b, "resact", [(100, 1.2, 0.3), (200, 1.4, 0.2), (300, 1.6, 0.2)])
    write_run(c, "il", [(100, 1.0, 0.3), (200, 1.0, 0.4), (300, 1.0, 0.5)], lines=False)
    code, out, err = curves(a, b, c, "--title", "A < B", "--metric", "q")
    assert (code, err) == (0, ""), err
    root = xml.fromstring(out)
    texts = [t.text for t in root.iter(SVG + "text")]
    for want in ("A < B", "resact 1.500", "il 1.000", "the log 1.000", "floor 10%", "il 50%", "resact 12%", "resact 29.9", "300"):
        assert want in texts, (want, texts)
    thick = [l for l in root.iter(SVG + "polyline") if l.get("stroke-width") == "2.2"]
    thin = [l for l in root.iter(SVG + "polyline") if l.get("opacity") == "0.4"]
    assert len(thick) == 6 and len(thin) == 6, "a mean of each algorithm in each panel, a line of each of two seeds"
    mean, one, other = points(thick[0]), points(thin[0]), points(thin[1])
    for m, p, q in zip(mean, one, other):
        assert m[0] == p[0] == q[0] and abs(m[1] - (p[1] + q[1]) / 2) <= 0.11
    assert mean[0][1] > mean[1][1] > mean[2][1], "larger values are higher up"
    assert len(points(thick[1])) == 2, "without evaluations.jsonl: the cuts that were kept"
    hollow = [d for d in root.iter(SVG + "circle") if d.get("fill") == "#ffffff"]
    assert len(hollow) == 1, "one point is below the floor"
    rings = sorted((float(d.get("cx")), float(d.get("cy"))) for d in root.iter(SVG + "circle") if d.get("fill") == "none")
    best = sorted([points(thick[1])[0], one[1], other[2]])  # of equal values the first, never one below the floor
    assert len(rings) == 3 and all(abs(a - b) <= 0.11 for r, p in zip(rings, best) for a, b in zip(r, p)), (rings, best)
    for x, y in (p for l in thick + thin for p in points(l)):
        assert 0 <= x <= float(root.get("width")) and 0 <= y <= float(root.get("height"))
    assert "effective sample size (% of rows)" in texts, texts
    by_sessions = os.path.join(work, "sessions")
    write_run(by_sessions, "il", [(100, 1.2, 0.3), (200, 1.1, 0.3), (300, 1.0, 0.05)], unit="session", choose="last")
    rings = [d for d in xml.fromstring(curves(by_sessions)[1]).iter(SVG + "circle") if d.get("fill") == "none"]
    line = next(l for l in xml.fromstring(curves(by_sessions)[1]).iter(SVG + "polyline") if l.get("stroke-width") == "2.2")
    assert [float(r.get("cx")) for r in rings] == [points(line)[1][0]], "the last above the floor"
    texts = [t.text for t in xml.fromstring(curves(by_sessions)[1]).iter(SVG + "text")]
    assert "effective sample size (% of sessions)" in texts and any("reward per session" in t for t in texts), texts
    dark = dict(re.findall(r'\[fill="(#\w+)"\] \{fill: (#\w+)\}', root.find(SVG + "style").text))
    used = {e.get(k) for e in root.iter() for k in ("fill", "stroke")} - {None, "none"}
    assert used <= set(dark), ("a colour without its like on a dark page", used - set(dark))
    path = os.path.join(work, "out.svg")
    assert curves(a, b, c, "--title", "A < B", "--metric", "q", "--out", path) == (0, "", "")
    with open(path) as f:
        assert f.read() == out


def test_refusals(work):
    a, b, c, d = (os.path.join(work, n) for n in ("a", "b", "c", "d"))
    write_run(a, "il", [(100, 1.0, 0.3)])
    write_run(d, "il", [(100, 1.0, 0.3)], unit="session")
    write_run(b, "il", [(100, 1.0, 0.3)], digest="b2")
    write_run(c, "il", [])
    for arguments, sentence in (
        ([os.path.join(work, "none")], "none: no run there"),
        ([a, b], "different datasets"),
        ([a, d], "some by sessions"),
        ([c], "no run has an evaluation"),
        ([a, "--metric", "unheard"], "no run has a metric unheard"),
    ):
        code, out, err = curves(*arguments)
        assert code == 1 and out == "" and sentence in err, (arguments, code, err)
        assert not re.search("Traceback", err)


if __name__ == "__main__":
    for test in (test_drawing, test_refusals):
        with tempfile.TemporaryDirectory() as directory:
            test(directory)
