"""The symbols of a Tardis file: one column of every line to codes.

Belongs here: that one pass. The table of names is csv_symbol_kernels.py's.
"""

from __future__ import annotations

from tasks.kernels import kernel
from tasks.scanning.csv_kernels import survey
from tasks.scanning.csv_symbol_kernels import MAX_SYMBOL, intern


@kernel
def collect_symbols(buf, p, end, columns, symbol_column, slots, starts, arena, state):
    """Give each name in column `symbol_column` of buf[p:end] a code -> position of the first line not taken, `end` or where the table is full.

    buf uint8[n], buf[end - 1] a newline; columns: fields of a whole line, others are passed over, as are names longer than MAX_SYMBOL; slots, starts,
    arena: `csv_source.SymbolTable.arrays`, changed; state int64[csv_field_kernels.STATE_SIZE], changed.
    """
    while p < end:
        _, stop, fields, clean, first, last = survey(buf, p, symbol_column)
        whole = clean and fields == columns and last <= first + MAX_SYMBOL
        if whole and intern(buf, first, last, slots, starts, arena, state) < 0:
            return p
        p = stop + 1
    return p
