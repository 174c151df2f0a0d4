"""What a person looks at: heatmaps, the run report, the ledger and SQL views. Reads layers by their schema, never the code that makes them.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others. check_ledger is ledger.check, draw_heatmap is draw.draw, write_ledger is ledger.write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from tasks.publishing.draw import draw as draw_heatmap
    from tasks.publishing.ledger import check as check_ledger
    from tasks.publishing.ledger import write as write_ledger
    from tasks.publishing.views import layers, open_lake, query

__all__ = ["check_ledger", "draw_heatmap", "layers", "open_lake", "query", "write_ledger"]

# name -> module.attribute
_HOMES = {
    "check_ledger": "ledger.check",
    "draw_heatmap": "draw.draw",
    "layers": "views.layers",
    "open_lake": "views.open_lake",
    "query": "views.query",
    "write_ledger": "ledger.write",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
