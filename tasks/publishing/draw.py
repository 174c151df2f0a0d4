"""The pictures of one partition, from its heatmap grid and trades. Painting is in heatmap_png.py and heatmap_html.py."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from tasks.heatmap_grid import HeatmapGrid
from tasks.partitions import Partition
from tasks.publishing.axes import TradeChunk
from tasks.publishing.heatmap_html import draw_html
from tasks.publishing.heatmap_png import draw_png
from tasks.schemas import char_codes

LAYER = "heatmap"
SUFFIXES = (".png", ".html")
TRADE_ROWS = 65_536


def are_drawn(lake: Path, partition: Partition) -> bool:
    """Whether both pictures are there and not older than the grid. They have no footer to hold a stamp; the grid has."""
    grid = lake / partition.path(LAYER)
    pictures = [lake / partition.path(LAYER, suffix=suffix) for suffix in SUFFIXES]
    return all(p.exists() and p.stat().st_mtime_ns >= grid.stat().st_mtime_ns for p in pictures)


def draw(lake: Path, partition: Partition, clock: str) -> dict[str, str]:
    """Draw PNG and HTML beside the grid; suffix -> path relative to the lake. clock: the grid's, ts_recv or ts_event."""
    paths = {suffix: partition.path(LAYER, suffix=suffix) for suffix in SUFFIXES}
    if are_drawn(lake, partition):
        return paths
    grid = HeatmapGrid.load(lake / partition.path(LAYER))
    trades = LakeTrades(lake / partition.path("trades"), clock)
    title = f"{partition.symbol}  {partition.date}  {partition.dataset}"
    draw_png(grid, trades, lake / paths[".png"], title=title)
    draw_html(grid, trades, lake / paths[".html"], title=title)
    return paths


class LakeTrades:
    """The trades of a layer on a clock, read again whenever they are gone through; none of a depth feed, which has no such layer."""

    def __init__(self, path: Path, clock: str) -> None:
        self._path, self._clock = path, clock

    def __iter__(self) -> Iterator[TradeChunk]:
        if not self._path.exists():
            return
        with pq.ParquetFile(self._path, read_dictionary=["side"], pre_buffer=False) as file:
            for batch in file.iter_batches(TRADE_ROWS, columns=[self._clock, "price", "size", "side"]):
                side = batch["side"]
                yield (
                    batch[self._clock].cast("int64").to_numpy(), batch["price"].to_numpy(), batch["size"].to_numpy(),
                    char_codes(tuple(side.dictionary.to_pylist()))[side.indices.to_numpy()],
                )  # fmt: skip


def picture_markdown(name: str, path: Path, width: int = 1_000) -> str:
    """Markdown with the picture inside of it, scaled to `width` and 256 colours, so that an interface without access to the lake shows it."""
    picture = Image.open(path).convert("RGB")
    # An octree of colours and no second pass: 20 ms and 80 KB where the median cut took 150 ms and 200 KB, and the eye sees no difference.
    small = picture.resize((width, picture.height * width // picture.width), Image.Resampling.LANCZOS).quantize(256, Image.Quantize.FASTOCTREE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"# {name}\n\n![heatmap of {name}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})\n"
