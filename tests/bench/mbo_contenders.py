"""What the market-by-order benchmark measures of ours, and the floors: each a call that is prepared before its clock starts.

A new one is a function from Files to a call, and a line in CONTENDERS; a target that speaks of it goes into mbo_targets.py. Others' programs
are in mbo_peers.py, the stages as the flow calls them in stages.py, whole runs in mbo_flow.py; how all are started and shown is in mbo.py.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import mbo_floors as floors
from tests.bench.mbo_flow import WARM_RECORDS
from tests.bench.mbo_many import decode_and_rebuild, written_only
from tests.bench.mbo_replays import file_to_touch, replay, states_written
from tests.bench.mbo_session import MOST_SYMBOLS, Call, Contender, Files, Found
from tests.bench.stages import FLOOR, STAGES, Place

REPLAY = "replay alone"
IN_C = "the same replay in C, ladder known in advance"
STATES = "every ten-level state written and synced"
TO_TOUCH = ".dbn.zst to book and touch"
PICTURE, PICTURE_OF_SEVEN = ".dbn.zst to heatmap PNG", "seven columns to heatmap PNG"
ONE_SYMBOL = "one symbol, decode + rebuild"
MANY, MANY_BY_TWO = (f"up to {MOST_SYMBOLS:,} symbols, decode + rebuild, {n} at a time" for n in ("one", "two"))
MANY_WRITTEN, MANY_WRITTEN_BY_TWO = (f"the files of those symbols from memory, {n} at a time" for n in ("one", "two"))
OF_MANY = {MANY, MANY_BY_TWO, MANY_WRITTEN, MANY_WRITTEN_BY_TWO}


def _stage(files: Files, name: str) -> Call:
    call = STAGES[name](files.place)

    def run() -> Found:
        done: Any = call()
        reports = done if isinstance(done, list) else [done]
        return Found(facts={"rows": sum(report.rows for report in reports)} if name.startswith("gate") else {})

    return run


def _decode(files: Files, layout: str) -> Call:
    """Decode with a filter that looks at each row and keeps it, into a lake of its own."""
    from tasks.partitions import EventFilter, MboRecipe
    from tasks.scanning.decode import decode

    recipe = MboRecipe(filter=EventFilter(end_ns=2**62))

    def call(of: Files) -> Found:
        with tempfile.TemporaryDirectory(prefix="lake-", dir=files.folder) as lake:
            return Found({"records": decode(file[of], Path(lake), recipe).rows_out})

    small = Files(files.folder, WARM_RECORDS, files.lake)
    file = {of: Place(getattr(of, layout), of.lake).file for of in (small, files)}
    call(small)  # kernels compiled and loaded
    return lambda: call(files)


def _picture(files: Files, layout: str) -> Call:
    """The file to a PNG in one pass, as `bookmill heatmap` draws it, without its start."""
    from deployments.heatmap import write_heatmap

    def run(of: Files) -> Found:
        with tempfile.TemporaryDirectory(prefix="picture-", dir=files.folder) as folder:
            png = Path(folder) / "heat.png"
            code = write_heatmap(getattr(of, layout), png, False, "", 1600, 1000, "ts_recv", False)
            assert code == 0, f"exit code {code}"
            assert png.read_bytes().startswith(b"\x89PNG")
        return Found()

    run(Files(files.folder, WARM_RECORDS, files.lake))  # kernels compiled and loaded
    return lambda: run(files)


def _filter(files: Files) -> Call:
    """Every question of the filter asked of every record (symbol, publisher, time, hours), columns in memory; all of them pass."""
    import numpy as np

    from tasks.events_file import read_events
    from tasks.filtering.predicate import RowFilter
    from tasks.partitions import EventFilter

    wanted = RowFilter(EventFilter(symbols=("ESZ5",), publishers=(1,), start_ns=0, end_ns=2**62, hours=("13:00", "21:00")))
    columns = list(read_events(files.events, ("publisher_id", "ts_recv")))
    codes = np.zeros(max(len(batch["ts_recv"]) for batch in columns), np.int32)

    def run(some: list[dict[str, Any]]) -> Found:
        kept = 0
        for batch in some:
            n = len(batch["ts_recv"])
            kept += n - int(np.count_nonzero(wanted.reasons(["ESZ5"], codes[:n], batch["publisher_id"], batch["ts_recv"])))
        return Found({"records": kept})

    run(columns[:1])  # kernel loaded
    return lambda: run(columns)


CONTENDERS: dict[str, Contender] = {
    FLOOR: Contender("floor", floors.floor),
    "copy of the records in memory": Contender("floor", floors.copy),
    "Parquet decode, all columns": Contender("floor", partial(floors.parquet, layout="full")),
    "Parquet decode, seven columns": Contender("floor", partial(floors.parquet, layout="seven")),
    "write the book layers only": Contender("floor", floors.write, needs="rebuild"),
    IN_C: Contender("floor", floors.replay_in_c, needs="decode", program="cc"),
    "decode + filter, .dbn.zst": Contender("ours", partial(_decode, layout="source")),
    "decode + filter, full Parquet": Contender("ours", partial(_decode, layout="full")),
    "decode + filter, seven columns": Contender("ours", partial(_decode, layout="seven")),
    "filter alone": Contender("ours", _filter, needs="decode"),
    REPLAY: Contender("ours", partial(replay, depth=1, rows=False), needs="decode"),
    "replay + bbo": Contender("ours", partial(replay, depth=1), needs="decode"),
    "replay + bbo + ten levels": Contender("ours", partial(replay, depth=10), needs="decode"),
    "replay + bbo + ten levels + heatmap": Contender("ours", partial(replay, depth=10, heat=True), needs="decode"),
    STATES: Contender("ours", states_written, needs="decode"),
    TO_TOUCH: Contender("ours", file_to_touch),
    PICTURE: Contender("ours", partial(_picture, layout="source")),
    PICTURE_OF_SEVEN: Contender("ours", partial(_picture, layout="seven")),
    ONE_SYMBOL: Contender("ours", partial(decode_and_rebuild, many=False, workers=1)),
    MANY: Contender("ours", partial(decode_and_rebuild, many=True, workers=1)),
    MANY_BY_TWO: Contender("ours", partial(decode_and_rebuild, many=True, workers=2)),
    MANY_WRITTEN: Contender("floor", partial(written_only, workers=1)),
    MANY_WRITTEN_BY_TWO: Contender("floor", partial(written_only, workers=2)),
    **{name: Contender("ours", partial(_stage, name=name), needs=name) for name in STAGES if name != FLOOR},
}  # fmt: skip
