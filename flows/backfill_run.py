"""One run of the backfill flow: plans, batches as subflow runs, what failed, and the freshness artifacts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.depth_snapshots import depth_snapshots
from flows.market_by_order import market_by_order
from flows.plan import Planned
from flows.plan_batches import FailedDay, Unit, batches_of, failed_days, proofs_of, units_of, waits_for
from flows.plan_options import Asked
from flows.run import RunFailed
from tasks.errors import UsageError
from tasks.publishing.freshness import STATES
from tasks.publishing.freshness_table import counts_sentence, freshness_markdown, freshness_rows

# Work can show other work: two sources of one partition whose names do not tell, a day that goes on from one made anew. More rounds are a fault.
ROUNDS = 5
SHOWN_ERRORS = 3  # of a run; all are in its report


class BackfillRun:
    """Batches run one after the other in date order: no two of them work on a symbol at once, and each day finds the book of the day before."""

    def __init__(self, asked: Asked, batch: int, max_batches: int, retry_failed: bool) -> None:
        if batch < 1 or max_batches < 0:
            raise UsageError(f"batch is {batch} and max_batches {max_batches}; allowed: 1 or more sources a batch, 0 (no limit) or more batches")
        self._asked, self._batch, self._most = asked, batch, max_batches
        self._retry_failed = retry_failed
        self._planned: Planned | None = None
        self._rounds = 0
        self._tried: set[tuple[str, tuple[str, ...]]] = set()
        self._given_up: set[str] = set()
        self._proofs: set[str] = set()  # fingerprints of published books that a run was given
        self._failed: list[FailedDay] = []
        self.batches: list[dict[str, Any]] = []
        self.errors: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self._log = logging.getLogger("flows.backfill")

    def plan(self) -> Planned:
        """What there is, and what is left. The plan before this one is closed."""
        if self._planned is not None:
            # The traceback of a run that failed holds the frames that called it, and they the plan: DuckDB complains of one that is open at the end.
            self._planned.plan.close()
        planned = self._planned = self._asked.plan()
        self._log.info("%d sources, %s", len(planned.files), counts_sentence(planned.plan.counts()))
        for path in planned.waiting:
            self._log.info("%s is still being written, or was just now: it is left for the next run", path)
        return planned

    def publish(self, planned: Planned) -> None:
        """The freshness table and its summary as artifacts; each plan is a new version of them."""
        notes = [f"{b['sources']} sources from {b['first_date'] or 'unknown dates'}: {b['state']}" for b in self.batches]
        notes += [f"{name} waits for {why}" for name, why in self.held.items()]
        text = freshness_markdown(planned.plan, planned.waiting, planned.rejected, notes, [file.name for file in planned.unread])
        create_markdown_artifact(key="bookmill-freshness", markdown=text, description="What the lake has, and what it lacks")
        create_table_artifact(key="bookmill-freshness-table", table=freshness_rows(planned.plan), description="Days by symbol, layer and state")

    def goes_on(self, planned: Planned) -> bool:
        """Whether there is something to do that was not tried already."""
        return self._rounds < ROUNDS and not self._is_full() and bool(self._left(planned))

    def work(self, planned: Planned) -> None:
        """Run what is left of a plan, batch by batch. A batch that fails holds up only what goes on from it."""
        self._rounds += 1
        for number, batch in enumerate(batches_of(self._left(planned), self._batch)):
            ready = []
            for unit in batch:
                day = waits_for(unit, self._failed) if self._asked.kind == "mbo" else None
                if day is None:
                    ready.append(unit)
                else:
                    self._hold(unit, day)
            if self._is_full():
                return
            if ready:
                self._run(number, ready, planned)

    def result(self, planned: Planned) -> dict[str, Any]:
        """What was done and what is left. Raises RunFailed when something failed or cannot be used."""
        counts = planned.plan.counts()
        left = units_of(planned, STATES[1:])
        summary: dict[str, Any] = {
            "batches": self.batches, "states": counts, "left": sum(len(unit.files) for unit in left), "held": self.held, "failed": self.errors,
            "waiting": planned.waiting, "rejected": [{"path": path, "error": why} for path, why in planned.rejected],
            "unread": [file.path for file in planned.unread],
        }  # fmt: skip
        stuck = [unit for unit in left if not self._is_full() and self.batches and _key(unit) in self._tried and "failed" not in unit.states]
        if stuck and not self.errors:
            names = ", ".join(found.file.name for unit in stuck[:5] for found in unit.files)
            self.errors["left"] = f"{names}: were run, and are not done after it. `bookmill plan` shows of which layers; please report it."
        planned.plan.close()  # a traceback would keep it until the interpreter ends, which DuckDB complains of
        if self.errors or (self._retry_failed and planned.rejected):
            done = [b for b in self.batches if b["state"] == "done"]
            told = [*self.errors.values(), *(f"{path}: {why}" for path, why in planned.rejected)]
            message = f"{len(self.batches)} batches, {len(self.errors)} failed, {len(planned.rejected)} files cannot be used: " + " | ".join(told[:5])
            raise RunFailed(message, summary, 1 if done or counts.get("done") else 2)
        return summary

    def _left(self, planned: Planned) -> list[Unit]:
        states = [s for s in STATES[1:] if s != "failed" or self._retry_failed]
        units = [unit for unit in units_of(planned, states) if _key(unit) not in self._tried and not self._is_held(unit)]
        return [unit for unit in units if _key(unit)[0] not in self._given_up]

    def _run(self, number: int, batch: Sequence[Unit], planned: Planned) -> None:
        self._tried |= {_key(unit) for unit in batch}
        files = [found.file for unit in batch for found in unit.files]
        # Once: a run brings a published book into the lake whole, where the certificates of later runs find it.
        proofs = [book for book in proofs_of(planned.unread, batch) if book.fingerprint not in self._proofs]
        self._proofs |= {book.fingerprint for book in proofs}
        flow: Any = market_by_order if self._asked.kind == "mbo" else depth_snapshots
        name = f"{self._asked.kind} {self._rounds}.{number + 1}: {len(files)} sources from {batch[0].date or 'unknown dates'}"
        state = flow.with_options(flow_run_name=name.replace("{", "(").replace("}", ")"))(
            sources=sorted({f.path for f in (*files, *proofs)}), **self._asked.parameters, return_state=True
        )
        fault = state.result(raise_on_failure=False)
        broken = isinstance(fault, BaseException)
        told = "done" if not broken else f"failed: {_reason(fault)}"
        self.batches.append({"sources": len(files), "first_date": batch[0].date, "state": told, "flow_run": str(state.state_details.flow_run_id)})
        if broken:
            self.errors[name] = _reason(fault)
            self._given_up |= {_key(unit)[0] for unit in batch}
            self._failed += failed_days(batch, fault.facts if isinstance(fault, RunFailed) else None)
            self._log.error("%s failed: %s", name, _reason(fault))

    def _hold(self, unit: Unit, day: FailedDay) -> None:
        for found in unit.files:
            self.held[found.file.name] = f"{day.symbol} {day.date}, which failed"
            self._log.warning("%s waits: its books go on from %s %s, which failed", found.file.name, day.symbol, day.date)

    def _is_held(self, unit: Unit) -> bool:
        return any(found.file.name in self.held for found in unit.files)

    def _is_full(self) -> bool:
        return bool(self._most) and len(self.batches) >= self._most


def _key(unit: Unit) -> tuple[str, tuple[str, ...]]:
    """What a round tried: the sources by content, and what was to be done."""
    return "|".join(sorted(f.file.fingerprint for f in unit.files)), unit.states


def _reason(fault: BaseException) -> str:
    """What went wrong in a run, with the first faults of its sources and partitions."""
    if not isinstance(fault, RunFailed):
        return f"{type(fault).__name__}: {fault}"
    errors = [entry["error"] for entry in (*fault.facts.get("rejected", []), *fault.facts.get("partitions", [])) if entry["error"]]
    more = f" | and {len(errors) - SHOWN_ERRORS:,} more" if len(errors) > SHOWN_ERRORS else ""
    return f"{fault}: " + " | ".join(errors[:SHOWN_ERRORS]) + more
