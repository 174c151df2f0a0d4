"""The heatmap grid: resting size by time and price, as reconstruction makes it and publishing draws it. Schema and (de)serialisation only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.footers import read_facts
from tasks.partitions import Stamp
from tasks.storage import write_table

GRID = pa.schema(
    [
        ("column", pa.uint16()),  # time bin, 0 is the earliest
        ("row", pa.uint16()),  # price bin, 0 is the lowest
        ("bid", pa.float32()),  # time-weighted mean resting size within the pixel
        ("ask", pa.float32()),
    ]
)


@dataclass(frozen=True)
class HeatmapGrid:
    """bids, asks: float32[height, width], row 0 the lowest price; time_edges: int64[width + 1] ns; price_edges: int64[height + 1] 1e-9;
    bid_px, ask_px: int64[width] touch at the end of each column, UNDEF_PRICE when none; spans: (start_ns, end_ns, status, reason) of each
    stretch in which the book is not valid; axis: "time" (columns equally long) or "event" (columns hold equally many events); ticks: how many
    prices of the feed a row may hold.
    """

    bids: np.ndarray
    asks: np.ndarray
    time_edges: np.ndarray
    price_edges: np.ndarray
    bid_px: np.ndarray
    ask_px: np.ndarray
    spans: tuple[tuple[int, int, str, str], ...]
    axis: str
    ticks: int = 1

    def save(self, path: Path, stamp: Stamp) -> None:
        """Write the non-zero pixels as Parquet; geometry and spans go into the footer."""
        row, column = np.nonzero((self.bids != 0) | (self.asks != 0))
        table = pa.table(
            {"column": column.astype(np.uint16), "row": row.astype(np.uint16), "bid": self.bids[row, column], "ask": self.asks[row, column]},
            schema=GRID,
        )
        facts = {
            "axis": self.axis,
            "ticks": self.ticks,
            "time_edges": self.time_edges.tolist(),
            "price_edges": [int(self.price_edges[0]), int(self.price_edges[-1]), len(self.price_edges)],
            "bid_px": self.bid_px.tolist(),
            "ask_px": self.ask_px.tolist(),
            "spans": [list(s) for s in self.spans],
        }
        write_table(path, table, stamp, facts)

    @staticmethod
    def load(path: Path) -> HeatmapGrid:
        """The grid that `save` wrote."""
        facts, table = read_facts(path), pq.read_table(path)
        low, high, edges = facts["price_edges"]
        width, height = len(facts["time_edges"]) - 1, edges - 1
        row, column = table["row"].to_numpy(), table["column"].to_numpy()
        planes = []
        for name in ("bid", "ask"):
            plane = np.zeros((height, width), np.float32)
            plane[row, column] = table[name].to_numpy()
            planes.append(plane)
        step = (high - low) // max(edges - 1, 1)
        return HeatmapGrid(
            bids=planes[0], asks=planes[1],
            time_edges=np.array(facts["time_edges"], np.int64), price_edges=low + step * np.arange(edges, dtype=np.int64),
            bid_px=np.array(facts["bid_px"], np.int64), ask_px=np.array(facts["ask_px"], np.int64),
            spans=tuple((int(a), int(b), str(c), str(d)) for a, b, c, d in facts["spans"]), axis=facts["axis"],
            ticks=facts.get("ticks", 1),  # grids made before this was noted do not say
        )  # fmt: skip
