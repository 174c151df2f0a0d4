"""What a rebuild puts out is pinned together with the code version: whoever changes the rows must raise CODE_VERSION, or lakes keep the old ones."""

from __future__ import annotations

import numpy as np

from tasks.aggregation.aggregate import aggregate
from tasks.book_rows import read_table
from tasks.partitions import MboRecipe, digest
from tasks.reconstruction.certify import certify
from tasks.reconstruction.heatmap import build_heatmap
from tasks.reconstruction.rebuild import rebuild
from tasks.schemas import CODE_VERSION, F_LAST, MBO_RECORD
from tests.lake_building import PARTITION, write_events

# 4: times of grids are encoded anew. 5: rows of books with snapshots, windows, halts, gaps or quarantined rows, which this one has not.
# 6: CSV times with offsets, and books with more quarantined rows than a footer lists.
PINNED = dict.fromkeys(("3", "4", "5", "6"), "b908e55ee306c063")


def records() -> np.ndarray:
    """800 events of a book that is cleared first: adds, cancels, modifies and trades drawn by a generator that NumPy keeps stable."""
    rng = np.random.Generator(np.random.PCG64(7))
    n = 800
    rows = np.zeros(n, MBO_RECORD)
    rows["action"] = rng.choice(np.frombuffer(b"AAAACMT", np.uint8), n)
    rows["side"] = rng.choice(np.frombuffer(b"AB", np.uint8), n)
    rows["price"] = 100_000_000_000 + 250_000_000 * (rng.integers(1, 9, n) * np.where(rows["side"] == ord("A"), 1, -1))
    rows["size"], rows["order_id"] = rng.integers(1, 20, n), rng.integers(1, 200, n)
    rows["flags"] = np.where(rng.random(n) < 0.8, F_LAST, 0)
    rows["ts_recv"] = 1_761_139_800_000_000_000 + np.cumsum(rng.integers(1, 100_000_000, n))
    rows["ts_event"], rows["sequence"] = rows["ts_recv"] - 100_000, np.arange(n)
    rows[0]["action"], rows[0]["side"], rows[0]["price"], rows[0]["size"], rows[0]["flags"] = ord("R"), ord("N"), 2**63 - 1, 0, F_LAST
    return rows


def test_rows_change_only_together_with_the_code_version(tmp_path):
    recipe = MboRecipe(depth=3, interval_ns=500_000_000, bars=("1s", "tick:7", "volume:50"), heatmap_width=50, heatmap_height=40)
    events = [write_events(tmp_path, records())]
    rebuilt = rebuild(tmp_path, PARTITION, events, recipe)
    aggregate(tmp_path, PARTITION, recipe)
    assert build_heatmap(tmp_path, PARTITION, events, rebuilt, recipe)
    certify(tmp_path, PARTITION, recipe)
    found = {
        path.relative_to(tmp_path).parts[0]: read_table(path).to_pylist()
        for path in sorted(tmp_path.rglob("*.parquet"))
        if "events" not in path.parts
    }
    assert len(found) >= 9
    assert digest(found) == PINNED.get(CODE_VERSION), f"rows differ from those of CODE_VERSION {CODE_VERSION}: raise it and pin {digest(found)}"
