"""Reads a longhaul dataset by common/PARTITIONS.md and nothing else: struct, json and numpy."""
import json
import os
import struct

import numpy as np

TYPES = {1: "<f4", 2: "u1", 3: "<u4", 4: "<u8", 5: "<i8"}
SPLITS = ("train", "validation", "test")


def read_partition(path):
    """Columns of one file by name; state columns keep their halo rows."""
    with open(path, "rb") as f:
        blob = f.read()
    assert blob[:8] == b"\x89LHPART\n", path
    (size,) = struct.unpack_from("<Q", blob, 16)
    assert size == len(blob), path
    (n_columns,) = struct.unpack_from("<I", blob, 92)
    out = {"rows": struct.unpack_from("<Q", blob, 32)[0]}
    for k in range(n_columns):
        at = 128 + 64 * k
        name = blob[at : at + 16].rstrip(b"\0").decode()
        kind, width, rows, offset = struct.unpack_from("<IIQQ", blob, at + 16)
        column = np.frombuffer(blob, TYPES[kind], rows * width, offset)
        out[name] = column.reshape(rows, width) if width != 1 or "state" in name else column
        if name == "action":
            out[name] = column.reshape(rows, width)
    return out


class Dataset:
    """All rows of a dataset, split by split, in row order."""

    def __init__(self, directory):
        self.directory = directory
        with open(os.path.join(directory, "manifest.json")) as f:
            self.manifest = json.load(f)
        self.split = {}
        for split in SPLITS:
            parts = []
            root = os.path.join(directory, split)
            days = os.listdir(root) if os.path.isdir(root) else []
            for day in sorted(days, key=lambda d: int(d.split("-", 1)[1])):
                for name in sorted(os.listdir(os.path.join(root, day))):
                    parts.append(read_partition(os.path.join(root, day, name)))
            self.split[split] = self._join(parts)

    @staticmethod
    def _join(parts):
        names = ("state_high", "state_low", "action", "reward", "flags", "time_us", "user",
                 "trajectory", "session")
        return {n: np.concatenate([p[n][: p["rows"]] for p in parts]) for n in names} if parts else None

    def trajectories(self, split):
        """Index arrays of the rows of each trajectory, in time order."""
        rows = self.split[split]
        if rows is None:
            return []
        # pieces of a trajectory lie in the partitions of their days, which come in order
        order = np.argsort(rows["trajectory"], kind="stable")
        starts = np.flatnonzero(np.diff(rows["trajectory"][order])) + 1
        groups = np.split(order, starts)
        for t in groups:
            assert rows["flags"][t[0]] & 1 and not (rows["flags"][t[1:]] & 1).any()
        return groups


def read_items(directory):
    """items.csv as {id: vector}."""
    with open(os.path.join(directory, "items.csv")) as f:
        assert f.readline().startswith("id,e_0")
        rows = [line.rstrip("\n").split(",") for line in f]
    return {int(r[0]): np.array(r[1:], np.float32).astype(np.float64) for r in rows}
