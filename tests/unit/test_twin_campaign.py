"""The replay against its naive twin, all that it tells: levels, status with reason and start, fills, snapshots compared, gaps and halts.

200 generated sessions in each mode (compiled, JIT off, every index checked), 10,000 in each with `-m campaign`; one in fifty is a long one of the
generator. The modes are processes of their own, as in test_kernel_modes.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.partitions import CLOCKS
from tasks.reconstruction.proof_kernels import P_STATES, P_STATES_MATCHED
from tasks.reconstruction.replay import Replay
from tasks.scanning.synthetic import SessionSpec, generate
from tasks.schemas import F_LAST, F_SNAPSHOT, REASONS, STATUSES
from tests.lake_building import columns_of
from tests.oracles.naive_status import NaiveAccount, facts_of
from tests.sampled import sampled_levels
from tests.strategies.sessions import sessions
from tests.unit.test_kernel_modes import MODES, WRAPS, python
from tests.unit.test_replay import naive_levels, one_book

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "200"))
LONG_RECORDS = int(os.environ.get("TEST_LONG_RECORDS", "1500"))
LONG = max(1, EXAMPLES // 50)
generated = settings(max_examples=EXAMPLES - LONG, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
DEPTH = 3
STATES = (-1, 0, 1)  # of trading: halted, quoting only, trading; as prices of whole currency units
agreed = {"hypothesis": 0, "generator": 0}


def disturb(records: np.ndarray, gaps: list[tuple[int, int]], halts: list[tuple[int, int]]) -> np.ndarray:
    """Sequence numbers that jump, and records of the trading state; places are taken modulo the length."""
    records = records.copy()
    records["sequence"] = np.arange(100, 100 + len(records))
    for at, by in gaps:
        records["sequence"][at % len(records) :] += np.uint32(by)
    for at, state in halts:
        row = records[at % len(records)]
        if not row["flags"] & F_SNAPSHOT:
            row["action"], row["side"], row["price"], row["size"], row["order_id"] = ord("N"), ord("N"), STATES[state] * 10**9, 0, 0
    return records


def agree(records: np.ndarray, marks: list[int], batch: int, clock: str, *, starts_empty: bool, contiguous: bool, halts: bool) -> None:
    """Assert that replay and twin tell the same of one session. marks: records before which a row was set aside."""
    replay = Replay(
        depth=DEPTH, interval_ns=10**12, clock=clock, starts_empty=starts_empty, contiguous=contiguous, halts=halts, batch_rows=batch, audit_every=1
    )
    columns, found, prints = columns_of(records), [], []
    for at in range(0, len(records), batch):
        here = np.array([mark - at for mark in marks if at <= mark < at + batch], np.int64)
        for samples in replay.feed({name: values[at : at + batch].copy() for name, values in columns.items()}, here):
            rows, trades = samples.rows, samples.trades
            px, sz, ct = sampled_levels(rows, samples.n_rows)
            for r in range(samples.n_rows):
                levels = tuple((int(px[k, r]), int(sz[k, r]), int(ct[k, r])) for k in range(2 * DEPTH))
                found.append((at + int(rows.at[r]), STATUSES[rows.status[r]], REASONS[rows.reason[r]], int(rows.since[r]), levels))
            for r in range(samples.n_trades):
                prints.append((at + int(trades.at[r]), STATUSES[trades.status[r]], REASONS[trades.reason[r]], int(trades.since[r])))
    account, expected, traded, now = NaiveAccount(DEPTH, starts_empty=starts_empty, contiguous=contiguous, halts=halts), [], [], 0
    for i, record in enumerate(records):
        now = max(now, int(record["ts_recv" if record["flags"] & F_SNAPSHOT else clock]))
        if record["action"] == ord("T"):
            traded.append((i, *account.shown, account.since if account.since >= 0 else now))
        account.apply(record, now, marks.count(i))
        if record["flags"] & F_LAST:
            expected.append((i, *account.shown, account.since, naive_levels(account.book, DEPTH)))
    assert found == expected
    assert prints == traded
    counters, told = replay.counters(), facts_of(account)
    assert {name: counters[name] for name in told} == told
    proofs = replay.comparisons()
    for kind, twin in (("fills", account.fills), ("snapshot", account.snapshots)):
        number = proofs[kind][0].number
        assert (int(number[P_STATES]), int(number[P_STATES_MATCHED])) == (len(twin), sum(twin)), kind
    detail = proofs["snapshot"][1]
    assert (detail["suspect_compared"], detail["suspect_matched"]) == (len(account.suspects), sum(account.suspects))


places = st.integers(0, 59)


@generated
@given(
    sessions(), st.lists(st.tuples(places, st.integers(1, 9)), max_size=2), st.lists(st.tuples(places, st.integers(0, 2)), max_size=3),
    st.lists(places, max_size=2), st.integers(1, 64), st.sampled_from(CLOCKS), st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_the_twin_agrees_on_generated_sessions(records, gaps, states, marks, batch, clock, starts_empty, contiguous, halts):
    records = disturb(one_book(records), gaps, states)
    agree(records, sorted(m for m in marks if m < len(records)), batch, clock, starts_empty=starts_empty, contiguous=contiguous, halts=halts)
    agreed["hypothesis"] += 1


def test_the_twin_agrees_on_long_sessions_of_the_generator():
    for seed in range(LONG):
        rng = np.random.default_rng(seed)
        spec = SessionSpec(records=LONG_RECORDS, seed=seed, live_orders=200, snapshot_start=seed % 2 == 1, gap=seed % 4 >= 2, hours=1.0)
        records = np.concatenate(list(generate(spec)))
        anywhere = [int(at) for at in rng.integers(0, len(records), 6)]
        if seed % 3:
            records = disturb(records, [(at, 5) for at in anywhere[:2]], [(at, int(rng.integers(0, 3))) for at in anywhere[2:]])
        marks = sorted(anywhere[:2]) if seed % 3 == 1 else []
        agree(records, marks, 512, CLOCKS[seed % 2], starts_empty=False, contiguous=seed % 3 > 0, halts=seed % 3 > 0)
        agreed["generator"] += 1


def test_as_many_sessions_were_replayed_as_were_asked_for(capsys):
    """After the two tests above; the runs in other modes read the line."""
    with capsys.disabled():
        print(f"\nsessions: {agreed['hypothesis']} of Hypothesis, {agreed['generator']} of the generator")
    assert agreed["generator"] in (0, LONG)
    assert agreed["hypothesis"] == 0 or agreed["hypothesis"] >= EXAMPLES - LONG


def in_mode(mode: str, examples: int, folder: Path, timeout_s: float, long_records: int) -> None:
    """The three tests above in a process of their own."""
    # Named one by one: a pattern that took in the tests below would start processes without end.
    chosen = [f"{__file__}::{test.__name__}" for test in (
        test_the_twin_agrees_on_generated_sessions, test_the_twin_agrees_on_long_sessions_of_the_generator,
        test_as_many_sessions_were_replayed_as_were_asked_for,
    )]  # fmt: skip
    options = ["-p", "no:cacheprovider", "-W", "error::RuntimeWarning"]
    options += [option for module in WRAPS for option in ("-W", f"ignore:overflow encountered in scalar multiply:RuntimeWarning:{module}")]
    variables = {**MODES.get(mode, {}), "TEST_EXAMPLES": str(examples), "TEST_LONG_RECORDS": str(long_records)}
    code, output = python(["-m", "pytest", *options, f"--timeout={int(timeout_s)}", *chosen], variables, folder, timeout_s)
    assert code == 0, output[-8_000:]
    line = re.search(r"sessions: (\d+) of Hypothesis, (\d+) of the generator", output)
    assert line is not None, output[-8_000:]
    assert int(line[1]) + int(line[2]) >= examples


@pytest.mark.parametrize("mode", MODES)
def test_the_twin_agrees_on_200_sessions_in_every_other_mode(mode, tmp_path):
    in_mode(mode, 200, tmp_path, 280, 300)


@pytest.mark.campaign
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("mode", ["compiled", *MODES])
def test_the_twin_agrees_on_10_000_sessions_in_every_mode(mode, tmp_path):
    in_mode(mode, 10_000, tmp_path, 7_000, 3_000 if mode != "jit off" else 1_000)
