"""Comparisons with a truth as JSON (in footers) and as rows of the certificate. No comparing here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tasks.partitions import Partition
from tasks.reconstruction.proof_kernels import (
    P_DIFFERENCE,
    P_DIVERGED_AT,
    P_FIRST,
    P_LAST,
    P_LAST_GOOD,
    P_LEVELS,
    P_LEVELS_MATCHED,
    P_SEQUENCE,
    P_SPANS,
    P_STATES,
    P_STATES_MATCHED,
    Proof,
)
from tasks.schemas import UNDEF_PRICE, WRONG_SPANS


def to_json(proof: Proof, detail: dict[str, Any] | None = None) -> dict[str, Any]:
    """A comparison for a footer: its numbers, its wrong spans and what else is known of it."""
    spans = proof.spans[: min(int(proof.number[P_SPANS]), WRONG_SPANS)]
    return {"number": proof.number.tolist(), "spans": spans.tolist(), "detail": detail or {}}


def row_of(partition: Partition, truth: str, source: str, told: dict[str, Any]) -> dict[str, Any]:
    """The CERTIFICATE row of a comparison as `to_json` gives it; verdict "no_truth" when nothing was compared, "diverged" when any
    state or span is wrong."""
    number = told["number"]
    states, matched = number[P_STATES], number[P_STATES_MATCHED]
    row: dict[str, Any] = {
        **identity(partition),
        "truth": truth,
        "source": source,
        "verdict": "diverged" if states != matched or number[P_SPANS] > 0 else "matched" if states else "no_truth",
        "states_compared": states,
        "states_matched": matched,
        "levels_compared": number[P_LEVELS],
        "levels_matched": number[P_LEVELS_MATCHED],
        "first_compared": _time(number[P_FIRST]),
        "last_compared": _time(number[P_LAST]),
        "last_good": _time(number[P_LAST_GOOD]),
        "wrong": [{"start": _time(start), "end": _time(end)} for start, end in told["spans"]],
        "wrong_spans": number[P_SPANS],
        "detail": json.dumps(told["detail"], sort_keys=True) if told["detail"] else "",
    }
    if number[P_DIVERGED_AT] >= 0:
        side, level, *values = number[P_DIFFERENCE:]
        names = ("expected_px", "expected_sz", "expected_ct", "found_px", "found_sz", "found_ct")
        row |= {"diverged_at": number[P_DIVERGED_AT], "sequence": number[P_SEQUENCE], "side": "B" if side == 0 else "A", "level": max(level, 0)}
        row |= {
            name: None if value == UNDEF_PRICE or (value < 0 and name.endswith("_ct")) else value for name, value in zip(names, values, strict=True)
        }
    return row


def no_truth_row(partition: Partition) -> dict[str, Any]:
    """The row of a partition that nothing proves."""
    told = {"number": np.full(P_DIFFERENCE + 8, -1).tolist(), "spans": [], "detail": {}}
    row = row_of(partition, "none", "", told)
    return row | dict.fromkeys(("states_compared", "states_matched", "levels_compared", "levels_matched", "wrong_spans"), 0) | {"verdict": "no_truth"}


def identity(partition: Partition) -> dict[str, Any]:
    """The columns that say which book it is."""
    return {
        "dataset": partition.dataset, "date": partition.date, "symbol": partition.symbol,
        "publisher_id": partition.publisher_id, "instrument_id": partition.instrument_id,
    }  # fmt: skip


def _time(ns: int) -> int | None:
    return None if ns < 0 else ns
