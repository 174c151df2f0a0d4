"""The demo: a generated session through the whole flow; and the generator on the command line."""

from __future__ import annotations

import time
from pathlib import Path

from config.settings import Settings
from tasks.errors import UsageError


def run_demo(settings: Settings, overrides: dict[str, str], records: int, seed: int, lake: Path, profile: str, api_url: str | None) -> int:
    """Write a session to <lake>/source, run the market-by-order flow on it and say where to look. Returns the exit code of the run."""
    from deployments.launch import run_flow

    source = lake.absolute() / "source" / f"session-{records}-{seed}.mbo.dbn.zst"
    if not source.exists():
        generate_file(source, records, "dbn.zst", "ESZ5", seed, "2025-10-22")
    parameters = {"sources": [str(source)], "lake": str(lake.absolute() / "lake"), "profile": profile, "settings": overrides}
    code = run_flow(settings, parameters, api_url)
    if code == 0:
        query = "select ts_event, price(bid_px_00) bid, price(ask_px_00) ask, bid_sz_00, ask_sz_00, status from bbo limit 5"
        print(f'\nAsk it:   bookmill sql --lake {lake / "lake"} "{query}"')
    return code


def generate_file(path: Path, records: int, format: str, symbols: str, seed: int, date: str) -> None:
    """Write a generated session and print what is in it."""
    from tasks.scanning.synthetic import SessionSpec
    from tasks.scanning.synthetic_writers import FORMATS, write_session

    if format not in FORMATS:
        raise UsageError(f"format is {format!r}; allowed: {', '.join(FORMATS)}")
    names = tuple(f"SYM{i:04d}" for i in range(int(symbols))) if symbols.isdigit() else tuple(s.strip() for s in symbols.split(",") if s.strip())
    start = time.perf_counter()
    facts = write_session(SessionSpec(records=records, seed=seed, symbols=names, date=date), path, format)
    seconds, megabytes = time.perf_counter() - start, path.stat().st_size / 1e6
    many = f"{len(names)} symbol{'s' if len(names) != 1 else ''}"
    print(f"{path}: {facts.records:,} records of {many} in {seconds:.1f} s ({megabytes:.1f} MB)")
