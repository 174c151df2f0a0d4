"""Which reader opens which format. Readers are imported when first needed: a folder of DBN files loads no Parquet code."""

from __future__ import annotations

from tasks.errors import UnknownFormat
from tasks.partitions import SourceFile
from tasks.scanning import formats
from tasks.scanning.batches import Reader


def open_reader(source: SourceFile) -> Reader:
    """A reader (see batches.py) at the first row of `source`; close it after use.

    Raises the SourceError of the format where its beginning cannot be read, UnknownFormat for a format without a reader.
    """
    if source.format == formats.DBN:
        from tasks.scanning.dbn import DbnReader

        return DbnReader(source)
    if source.format in (formats.DATABENTO_PARQUET, formats.SEVEN_COLUMN_PARQUET):
        from tasks.scanning.parquet_source import ParquetReader

        return ParquetReader(source)
    if source.format in (formats.DATABENTO_CSV, formats.SEVEN_COLUMN_CSV):
        from tasks.scanning.csv_source import CsvReader

        return CsvReader(source)
    if source.format == formats.LOBSTER:
        from tasks.scanning.lobster import LobsterReader

        return LobsterReader(source)
    if source.format == formats.ITCH:
        from tasks.scanning.itch import ItchReader

        return ItchReader(source)
    raise UnknownFormat(source.path, f"there is no reader for format {source.format!r}", remedy=f"Known are {', '.join(formats.FORMATS)}")
