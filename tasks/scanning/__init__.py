"""Finding sources and bringing them into the lake as events: inventory, formats, readers, row checks, quarantine; and generated sessions.

The names in `__all__` are the functions for a script without Prefect. They are looked up when first used, so that importing one module of
this package compiles and loads nothing of the others. decode_source is decode.decode: the shorter name is the module's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.lazy import lazy_names

if TYPE_CHECKING:
    from tasks.scanning.decode import Decoded, is_decoded
    from tasks.scanning.decode import decode as decode_source
    from tasks.scanning.gate_quarantine import quarantine_rows
    from tasks.scanning.inventory import Inventory, scan
    from tasks.scanning.synthetic import SessionSpec
    from tasks.scanning.synthetic_writers import write_session

__all__ = ["Decoded", "Inventory", "SessionSpec", "decode_source", "is_decoded", "quarantine_rows", "scan", "write_session"]

# name -> module.attribute
_HOMES = {
    "Decoded": "decode.Decoded",
    "Inventory": "inventory.Inventory",
    "SessionSpec": "synthetic.SessionSpec",
    "decode_source": "decode.decode",
    "is_decoded": "decode.is_decoded",
    "quarantine_rows": "gate_quarantine.quarantine_rows",
    "scan": "inventory.scan",
    "write_session": "synthetic_writers.write_session",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
