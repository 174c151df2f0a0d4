"""The gates between stages: expectations of each table, judged by Great Expectations, with a consequence each.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from validation.docs import write_data_docs
    from validation.gate import GateReport, require, run_gate

__all__ = ["GateReport", "require", "run_gate", "write_data_docs"]

# name -> module.attribute
_HOMES = {
    "GateReport": "gate.GateReport",
    "require": "gate.require",
    "run_gate": "gate.run_gate",
    "write_data_docs": "docs.write_data_docs",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
