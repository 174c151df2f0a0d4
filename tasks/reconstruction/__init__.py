"""The books: replay of events by the rules of the book, samples of them without look-ahead, heatmap grids. Kernels in *_kernels.py.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others. rebuild_book is rebuild.rebuild: the shorter name is the module's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from tasks.reconstruction.book import OrderBook
    from tasks.reconstruction.heatmap import build_heatmap
    from tasks.reconstruction.layer_writer import Rebuilt
    from tasks.reconstruction.rebuild import rebuild as rebuild_book
    from tasks.reconstruction.replay import Replay

__all__ = ["OrderBook", "Rebuilt", "Replay", "build_heatmap", "rebuild_book"]

# name -> module.attribute
_HOMES = {
    "OrderBook": "book.OrderBook",
    "Rebuilt": "layer_writer.Rebuilt",
    "Replay": "replay.Replay",
    "build_heatmap": "heatmap.build_heatmap",
    "rebuild_book": "rebuild.rebuild",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
