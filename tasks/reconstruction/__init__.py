"""The books: replay of events by the rules of the book, samples of them without look-ahead, heatmap grids. Kernels in *_kernels.py.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others. rebuild_book is rebuild.rebuild: the shorter name is the module's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.reconstruction.book import OrderBook
    from tasks.reconstruction.heatmap import build_heatmap
    from tasks.reconstruction.rebuild import Rebuilt
    from tasks.reconstruction.rebuild import rebuild as rebuild_book
    from tasks.reconstruction.replay import Replay

__all__ = ["OrderBook", "Rebuilt", "Replay", "build_heatmap", "rebuild_book"]

# name -> module.attribute
_HOMES = {
    "OrderBook": "book.OrderBook",
    "Rebuilt": "rebuild.Rebuilt",
    "Replay": "replay.Replay",
    "build_heatmap": "heatmap.build_heatmap",
    "rebuild_book": "rebuild.rebuild",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name].split(".")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
