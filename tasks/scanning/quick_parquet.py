"""What a Parquet file says about its times without being read: first and last, from the statistics of its row groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tasks.scanning.parquet_source import open_file


def time_span(path: Path, column: str) -> tuple[int, int] | None:
    """(first, last) ns of a column of integers or ns timestamps; None where another type, or a row group without statistics, leaves it open."""
    with open_file(path) as file:
        schema = file.schema_arrow
        if column not in schema.names or not file.metadata.num_row_groups:
            return None
        kind = schema.field(column).type
        if not (pa.types.is_int64(kind) or (pa.types.is_timestamp(kind) and kind.unit == "ns")):
            return None
        index = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)].index(column)
        found = [file.metadata.row_group(group).column(index).statistics for group in range(file.metadata.num_row_groups)]
    if any(one is None or not one.has_min_max for one in found):
        return None
    # The raw values: those of a timestamp would be turned into objects of pandas, which takes a second to load.
    first, last = min(one.min_raw for one in found), max(one.max_raw for one in found)
    return (first, last) if 0 <= first <= last else None
