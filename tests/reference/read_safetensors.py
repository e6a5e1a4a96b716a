"""Reads a safetensors file by the public description of the format and prints its tensors.

Independent of longhaul's reader and writer: struct, json and numpy only.
usage: read_safetensors.py FILE
"""
import json
import struct
import sys

import numpy as np


def load(path):
    with open(path, "rb") as f:
        blob = f.read()
    (n,) = struct.unpack("<Q", blob[:8])
    assert n <= 100_000_000 and 8 + n <= len(blob), "header length"
    text = blob[8 : 8 + n].decode("utf-8")
    assert text.startswith("{"), "the header begins with {"
    header = json.loads(text)
    data = blob[8 + n :]
    tensors, ranges = {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            assert all(isinstance(v, str) for v in entry.values())
            continue
        assert entry["dtype"] == "F32"
        first, last = entry["data_offsets"]
        ranges.append((first, last))
        flat = np.frombuffer(data[first:last], dtype="<f4")
        tensors[name] = flat.reshape(entry["shape"])
    at = 0
    for first, last in sorted(ranges):
        assert first == at, "no holes and no overlaps"
        at = last
    assert at == len(data), "the buffer is used to its end"
    return tensors


if __name__ == "__main__":
    for key, value in sorted(load(sys.argv[1]).items()):
        print(key, value.shape, " ".join(f"{float(x):.7g}" for x in value.ravel()))
