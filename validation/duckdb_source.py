"""A Great Expectations data source for DuckDB: `context.data_sources.add_duckdb(name=...)` exists once this module is imported.

Great Expectations closes its connection between queries for dialects it does not know; an in-memory DuckDB then starts empty and every
result is an "index out of range". Here one connection is opened and kept. The library imports in 6 to 9 seconds, so only a function that
runs a gate may import this module.
"""

from __future__ import annotations

import atexit
import builtins
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from great_expectations.datasource.fluent import SQLDatasource  # isort: skip
from great_expectations.execution_engine import SqlAlchemyExecutionEngine  # isort: skip


@atexit.register
def _release_driver() -> None:
    """Let go of DuckDB before the interpreter ends.

    Great Expectations and duckdb_engine together keep each other's modules alive past the end, and DuckDB's binding then prints some 80
    lines of "nanobind: leaked" on the terminal of every run. Emptying the driver's modules breaks the ring; nothing uses them any more.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "duckdb_engine"]:
        vars(sys.modules[name]).clear()


class DuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """Runs every query of a validation on the one connection it opened first."""

    @contextmanager
    def get_connection(self) -> Generator[sa.Connection, None, None]:
        if self._connection is None:
            self._connection = self.engine.connect()
        yield self._connection


class DuckDBDatasource(SQLDatasource):
    """A SQL data source on an in-memory DuckDB (or the database file that `connection_string` names)."""

    type: Literal["duckdb"] = "duckdb"  # type: ignore[assignment]
    connection_string: str = "duckdb:///:memory:"

    @property
    def execution_engine_type(self) -> builtins.type[DuckDBExecutionEngine]:
        return DuckDBExecutionEngine

    def _create_engine(self) -> sa.Engine:
        # StaticPool: the library tests an asset through this engine and validates through the next; both must see the same database.
        return sa.create_engine(self.connection_string, poolclass=StaticPool)

    def get_execution_engine(self) -> DuckDBExecutionEngine:
        if self._execution_engine is None:
            self._execution_engine = DuckDBExecutionEngine(engine=self.get_engine())
        return self._execution_engine

    def load(self, name: str, table: pa.Table) -> None:
        """Copy `table` into the database under `name`, in the place of an earlier one."""
        kept = self._execution_engine._connection if self._execution_engine is not None else None
        if kept is not None:
            kept.rollback()  # the transaction in which the last validation read: there is one connection, and no transaction within another
        with self.get_engine().begin() as connection:
            connection.exec_driver_sql("register", ("incoming", table))
            connection.exec_driver_sql(f'CREATE OR REPLACE TABLE "{name}" AS FROM incoming')

    def close(self) -> None:
        """Close the kept connection; the in-memory database goes with it."""
        if self._execution_engine is not None and self._execution_engine._connection is not None:
            self._execution_engine._connection.close()
        self.get_engine().dispose()
