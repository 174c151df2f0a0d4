"""Shared fixtures. Real files are read where they are, never copied; a test that needs one is skipped where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("BOOKMILL_REAL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


@pytest.fixture(scope="session")
def real_data():
    """A function from a relative name to the path of a real file; skips, with the reason, where it is absent."""

    def find(name: str) -> Path:
        path = REAL_DATA / name
        if not path.exists():
            pytest.skip(f"real file {name} is not under {REAL_DATA} (set BOOKMILL_REAL_DATA)")
        return path

    return find
