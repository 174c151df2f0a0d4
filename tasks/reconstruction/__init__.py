"""The books: replay of events by the rules of the book, samples of them without look-ahead, heatmap grids. Kernels in *_kernels.py.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others. rebuild_book is rebuild.rebuild, certify_book certify.certify, rebuilt_book_at
book_at.book_at, order_queue queue_position.queue_position: the shorter names are the modules'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from tasks.reconstruction.book import OrderBook
    from tasks.reconstruction.book_at import book_at as rebuilt_book_at
    from tasks.reconstruction.certify import certify as certify_book
    from tasks.reconstruction.heatmap import build_heatmap
    from tasks.reconstruction.history import find_partition
    from tasks.reconstruction.layer_writer import Rebuilt
    from tasks.reconstruction.lifetimes import order_lifetimes
    from tasks.reconstruction.queue_position import queue_position as order_queue
    from tasks.reconstruction.rebuild import rebuild as rebuild_book
    from tasks.reconstruction.replay import Replay

__all__ = [
    "OrderBook", "Rebuilt", "Replay", "build_heatmap", "certify_book", "find_partition", "order_lifetimes", "order_queue", "rebuild_book",
    "rebuilt_book_at",
]  # fmt: skip

# name -> module.attribute
_HOMES = {
    "OrderBook": "book.OrderBook",
    "Rebuilt": "layer_writer.Rebuilt",
    "Replay": "replay.Replay",
    "build_heatmap": "heatmap.build_heatmap",
    "certify_book": "certify.certify",
    "find_partition": "history.find_partition",
    "order_lifetimes": "lifetimes.order_lifetimes",
    "order_queue": "queue_position.queue_position",
    "rebuild_book": "rebuild.rebuild",
    "rebuilt_book_at": "book_at.book_at",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
