"""scripts/scale: the model on numbers computed by hand, what check measures and prints, the figure, bad input.

    test_scale.py SCALE LONGHAUL BENCH_DATASET
"""
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml

SVG = "{http://www.w3.org/2000/svg}"
SCALE, LONGHAUL, BENCH_DATASET = sys.argv[1:4]
# Everything costs nothing but what a test sets.
FREE = ["flops=1e99", "row=0", "block=0", "param_near=0", "param_far=0", "gather=0", "near=1e99", "far=1e99", "hop=0", "message=0",
        "byte_ipc=0", "message_ipc=0", "row_read=0", "row_add=0", "row_step=0", "row_miss=0"]
MODEL = ["params=1000000", "targets=500000", "flop=2000000"]


def load():
    loader = importlib.machinery.SourceFileLoader("scale", SCALE)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("scale", loader))
    loader.exec_module(module)
    return module


def scale(*arguments):
    done = subprocess.run([sys.executable, "-B", SCALE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


def predicted(*words):
    code, out, err = scale("predict", "--json", *words)
    assert (code, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


def near(a, b):
    assert math.isclose(a, b, rel_tol=1e-9), (a, b)


def test_tree(work):
    m = load()
    assert m.tree_share(8, 0, 3) == [(1, 0)] and m.tree_share(8, 1, 3) == [(1, 1), (0, 4)]
    assert m.tree_share(8, 2, 3) == [(0, 5), (1, 3)] and m.tree_share(3, 0, 1) == [(2, 0)] and m.tree_share(2, 0, 4) == []
    for leaves in range(1, 40):
        for n in range(1, 45):
            mine = [i for w in range(n) for level, index in m.tree_share(leaves, w, n) for i in range(index << level, (index + 1) << level)]
            assert [i for i in mine if i < leaves] == list(range(leaves)), (leaves, n)


def test_resact(work):
    """What bench_graph prints, and the bytes of a push, at hidden 64, 256 and 1024."""
    for hidden, params, flop in ((64, 114503, 855168), (256, 850055, 6861312), (1024, 9690503, 82495488)):
        r = predicted("hidden=%d" % hidden, "workers=1")[0]
        assert (r["params"], r["flop"]) == (params, flop), r


def test_phases(work):
    # one worker, 4 micro-batches of 250 rows and 1 us a row: 1 ms; one node
    r = predicted(*FREE, *MODEL, "batch=1000", "micro_batch=250", "flops=2e12", "workers=1")[0]
    near(r["step"], 1e-3)
    assert (r["leaves"], r["nodes"], r["bytes_in"], r["bytes_out"], r["bottleneck"]) == (4, 1, 4e6, 6e6, "computing")
    near(r["efficiency"], 1)
    # three workers share them as 1, 1 and 2; on two cores a step is no less than half of the work
    two = predicted(*FREE, *MODEL, "batch=1000", "micro_batch=250", "flops=2e12", "workers=3,4,8", "cores=2")
    for r in two:
        near(r["phases"]["compute and push"], 0.5e-3)
    assert [r["nodes"] for r in two] == [3, 4, 4]
    # Adam: 4 (7 P + 2 T) bytes, on each server its part; on two cores four servers take as long as two
    for servers, parts in ((1, 1), (2, 2), (4, 2)):
        r = predicted(*FREE, *MODEL, "workers=1", "cache=0", "far=32e9", "near=1", "servers=%d" % servers)[0]
        near(r["phases"]["optimiser"], 1e-3 / parts)
    # network: 8 workers of one node each, two servers; 2 MB of weights and 1 MB of targets on each
    r = predicted(*FREE, *MODEL, "hosts=many", "cores=16", "batch=2000", "micro_batch=250", "workers=8", "servers=2", "nic=1e9", "latency=0")[0]
    near(r["limits"]["server network, push"], 8 * 2e6 / 1e9)
    near(r["limits"]["server network, pull"], 8 * 3e6 / 1e9)
    near(r["limits"]["worker host network, pull"], 8 * 6e6 / 1e9)  # all eight are on one host
    near(r["step"], 32e-3 + 48e-3)
    assert r["bottleneck"] == "worker host network, pull" and r["hosts"] == 3
    half = predicted(*FREE, *MODEL, "hosts=many", "cores=16", "batch=2000", "micro_batch=250", "workers=8", "servers=2", "nic=1e9", "latency=0",
                     "wire=2")[0]
    near(half["step"], r["step"] / 2)
    # the I/O thread of a server, on hosts of their own: all pushes, then all answers; the last piece once more on its way
    r = predicted(*FREE, *MODEL, "hosts=many", "batch=2000", "micro_batch=250", "workers=8", "nic=1e99", "latency=0", "byte_ipc=1e-9")[0]
    near(r["step"], 8 * 4e6 * 1e-9 + 8 * 6e6 * 1e-9 + (1 << 20) * 1e-9)


def test_tables(work):
    m = load()
    near(m.distinct(1000, 0, 1e9), 1000)  # all of them come up
    assert abs(m.distinct(1000, 0, 1) - 1) < 1e-3 and abs(m.distinct(1e6, 0, 1e6) - 1e6 * (1 - math.exp(-1))) < 1
    exact = sum(-math.expm1(-500 / i / sum(1 / j for j in range(1, 2001))) for i in range(1, 2001))
    assert abs(m.distinct(2000, 1, 500) / exact - 1) < 0.01, (m.distinct(2000, 1, 500), exact)
    assert m.distinct(2000, 1, 500, 2000) == 0 and m.distinct(2000, 1, 500, 100) < m.distinct(2000, 1, 500, 10)
    # a million rows of 64 floats, all looked up alike: 1 us a row, on 4 servers
    r = predicted(*FREE, *MODEL, "table=0.256", "zipf=0", "batch=1000", "ids=1e6", "workers=1", "servers=4", "row_step=1e-6", "cores=4")[0]
    near(r["phases"]["optimiser"], 0.25)


def test_days(work):
    # a server of 1e9 floats, half of them with targets: 14 GB of state; no evaluation to wait for
    words = [*FREE, "params=1000000000", "targets=500000000", "flop=2", "batch=1000000", "micro_batch=250", "flops=2e6", "workers=1", "validation=0",
             "freeze=0.01", "durable=1", "restore=0.1", "mtbf=1", "detect=10", "rejoin=20", "core_hour=0.5", "cores=2", "transitions=1e9"]
    r = predicted(*words)[0]
    near(r["step"], 1)
    near(r["interval"], math.sqrt(2 * 0.14 * 86400))
    near(r["waste"], 0.14 / r["interval"] + (r["interval"] / 2 + 14 + 31.4) / 86400)
    near(r["day"], 1000 * (1 + r["waste"]))
    near(r["money"], 2 * r["day"] / 3600 * 0.5)


def test_check(work):
    """Real runs of the program; what was measured can be read again."""
    data = os.path.join(work, "data")
    subprocess.run([BENCH_DATASET, data, "2000", "4", "4", "2"], check=True)
    words = "workers=1,3 servers=2 hidden=8 batch=64 micro_batch=16 latent=4 z_high=4 z_low=4 high=4 low=4 action=2 transport=ipc"
    code, out, err = scale("check", "--json", "--program", LONGHAUL, "--dataset", data, "--seconds", "0.01", "--cases", words)
    assert (code, err) == (0, ""), err
    results = [json.loads(line) for line in out.splitlines()]
    assert [(r["workers"], r["servers"], r["batch"], r["hidden"]) for r in results] == [(1, 2, 64, 8), (3, 2, 64, 8)]
    assert all(0 < r["measured"] < 60 and r["predicted"] > 0 and 0 <= r["others"] for r in results)
    saved = os.path.join(work, "saved")
    with open(saved, "w") as f:  # one micro-batch after the other at 1 us a row: 64 us, then 32 on two cores
        for r, measured, others in zip(results, (0.128e-3, 0.0256e-3), (0.5, 0)):
            f.write(json.dumps(dict(r, measured=measured, others=others)) + "\n")
    code, out, err = scale("check", "--from", saved, *FREE, "params=1", "targets=1", "flop=1", "flops=1e6")
    assert (code, err) == (0, ""), err
    assert "| 8 | 64 | 16 | 1 | 2 | ipc | 0.13 | 0.06 | -50% |" in out and "| 0.03 | 0.03 | +25% |" in out, out
    assert "2 runs: error 50% in the median, 50% at the ninth decile, 50% at worst; -12% on average" in out, out
    assert "1 of the runs were disturbed" in out, out
    m = load()
    lines = ['{"step": %d, "seconds": %g}\n' % (i, i * 0.5) for i in range(21)] + ['{"step": 21, "sec']  # being written
    near(m.step_seconds(lines), 0.5)


def test_figure(work):
    path = os.path.join(work, "figure.svg")
    assert scale("figure", "servers=1,4", "transport=tcp", "--out", path) == (0, "", "")
    root = xml.parse(path).getroot()
    lines = root.findall(SVG + "polyline")
    assert len(lines) == 4
    for line in lines:
        points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
        assert len(points) > 20 and all(0 <= x <= 760 and 0 <= y <= 636 for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)
    texts = [t.text for t in root.iter(SVG + "text")]
    assert "1 server, tcp" in texts and "4 servers, tcp" in texts and "1,000" in texts, texts
    dark = dict(re.findall(r'\[fill="(#\w+)"\] \{fill: (#\w+)\}', root.find(SVG + "style").text))
    used = {e.get(k) for e in root.iter() for k in ("fill", "stroke")} - {None, "none"}
    assert used <= set(dark), ("a colour without its like on a dark page", used - set(dark))


def test_refusals(work):
    for arguments, sentence in (
        (["predict", "unheard=1"], "unheard=1: no KEY=VALUE"),
        (["predict", "workers=two"], "workers=two: expected whole numbers"),
        (["predict", "workers=0"], "must be 1 or more"),
        (["predict", "servers=61"], "at most 60"),
        (["predict", "nic=fast"], "nic=fast: expected a number"),
        (["predict", "transport=pigeon"], "ipc, tcp or curve"),
        (["predict", "--loud"], "no such option"),
        (["guess"], "no such command"),
        (["check", "--from", os.path.join(work, "none")], "No such file"),
        (["check", "--program", os.path.join(work, "none"), "--dataset", work], "none: No such file"),
        (["check", "--program", LONGHAUL, "--dataset", os.path.join(work, "none"), "--cases", "workers=1"], "longhaul train failed"),
    ):
        code, out, err = scale(*arguments)
        assert code == 1 and out == "" and sentence in err and len(err.splitlines()) == 1, (arguments, code, err)
    assert scale("--help")[0] == 0 and scale()[0] == 2


if __name__ == "__main__":
    for test in (test_tree, test_resact, test_phases, test_tables, test_days, test_check, test_figure, test_refusals):
        with tempfile.TemporaryDirectory() as directory:
            test(directory)
