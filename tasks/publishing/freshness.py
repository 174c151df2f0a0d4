"""What a lake has and what it lacks of what was asked for: a state for each partition and layer, judged on the footers of the files.

Two tables are compared: the catalog (freshness_catalog.py) and what the sources given would make. A stage stamps what it writes with a digest over
the stamps of what it read; the same digests are taken here over the stamps that are there now, for all partitions at once in DuckDB. Which layers a
flow makes, and the digests of its options, are told by the caller (flows/plan_mbo.py, flows/plan_depth.py). Writes nothing.

Certificates and ledgers, which are made from all else of their partition, count as stale with its books and as done when they are there; heatmaps
are drawn for the largest partitions only and are not judged.

Measured (tests/unit/test_plan_scale.py, processor time): 1,000,000 partitions with events, bbo and closing book, 3,000,500 files, 16 s; 100,000
partitions with eleven layers, 1,100,500 files, 3.5 s. On two idle cores a plan takes less than that, on busy ones more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from tasks.errors import BookmillError
from tasks.partitions import CARRY_DAYS
from tasks.publishing.freshness_catalog import MARK_SQL
from tasks.schemas import CODE_VERSION

STATES = ("done", "missing", "stale: recipe", "stale: code", "stale: source", "failed")

# Sources that were given. rank: of several for one partition of a depth feed the lowest makes its books; date and symbol: "" where only its rows say;
# recipe: digest of the options and names that count when it is decoded, "" of depth feeds.
GIVEN = pa.schema(
    [
        ("id", pa.int64()), ("dataset", pa.string()), ("short", pa.string()), ("name", pa.string()), ("fingerprint", pa.string()),
        ("first_date", pa.string()), ("last_date", pa.string()), ("symbol", pa.string()), ("kind", pa.string()), ("error", pa.string()),
        ("recipe", pa.string()),
    ]
)  # fmt: skip
# Layers that are wanted of a partition. role: book (made from the sources in one pass), derived (made from books) or account (made from all);
# kind: of the source, so that sources of several kinds can have layers of their own.
WANTED = pa.schema([("layer", pa.string()), ("role", pa.string()), ("recipe", pa.string()), ("kind", pa.string())])
# Failures of the last run that tried: of partitions, or of sources by name (date "").
FAILED = pa.schema(
    [
        ("dataset", pa.string()), ("date", pa.string()), ("symbol", pa.string()), ("publisher_id", pa.int64()), ("instrument_id", pa.int64()),
        ("source", pa.string()), ("error", pa.string()),
    ]
)  # fmt: skip
_KEY = "dataset, date, symbol, publisher_id, instrument_id"
_EVENTS = f"""
    insert into judged select {_KEY}, 0, 'events', coalesce(min(s.state) filter (s.state <> 'done'), 'done'), max(s.why), max(p.quarantined)
    from parts_of o join source_states s using (id) join parts p using ({_KEY}) group by {_KEY};
"""


@dataclass(frozen=True)
class Orders:
    """What counts for order-by-order sources. events: digest of the options of these files; books: date -> digest for the book layers, "" for every
    other date; other: of the column `wanted` of accounts, those that do not have all that is wanted now."""

    events: str
    books: dict[str, str]
    other: Sequence[str] = ()


class Plan:
    """A judged lake. Holds a DuckDB connection with the tables `judged` (partition, layer, state, why) and `todo` (ids of sources to run)."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Free the memory; nothing can be asked afterwards."""
        self._connection.close()
        del self._connection

    def rows(
        self, *, states: Sequence[str] = (), layers: Sequence[str] = (), symbols: Sequence[str] = (), start: str = "", end: str = "", most: int = 0
    ) -> list[dict[str, Any]]:
        """Partition and layer with state, reason and quarantined rows, sorted; dates in [start, end); most: so many at most, 0 for all."""
        wanted, values = self._where(states, layers, symbols, start, end)
        limit = f"limit {int(most)}" if most else ""
        query = f"select {_KEY}, layer, state, why, quarantined from judged {wanted} order by {_KEY}, layer {limit}"
        return self._connection.sql(query, params=values).to_arrow_table().to_pylist()

    def counts(self, **filters: Any) -> dict[str, int]:
        """State -> how many pairs of partition and layer, those that occur."""
        wanted, values = self._where(**filters)
        found = self._connection.execute(f"select state, count(*) from judged {wanted} group by state", values).fetchall()
        return {state: dict(found)[state] for state in STATES if state in dict(found)}

    def table(self, **filters: Any) -> list[dict[str, Any]]:
        """A row for each dataset, symbol and layer: first and last date, newest date that is done, and how many dates are in each state."""
        wanted, values = self._where(**filters)
        sums = ", ".join(f"count(*) filter (state = '{state}') as \"{state}\"" for state in STATES)
        query = (
            f"select dataset, symbol, layer, min(date) as first, max(date) as last, max(date) filter (state = 'done') as fresh_to, {sums}, "
            f"max(quarantined) as quarantined from judged {wanted} group by all order by dataset, symbol, layer"
        )
        return self._connection.sql(query, params=values).to_arrow_table().to_pylist()

    def todo(self, states: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Sources that have to be run: id, first_date (of what is left to do of it, "" where its rows tell) and states, by date."""
        values = list(states or STATES[1:])
        columns = "id, min(date) as first_date, list(distinct state order by state) as states"
        query = f"select {columns} from work where state in (select unnest(?)) group by id"
        return self._connection.sql(f"{query} order by first_date, id", params=[values]).to_arrow_table().to_pylist()

    def together(self) -> list[tuple[int, int]]:
        """(id, id of another source) of sources that hold rows of the same partition: a book is made of all of them, so they are run together."""
        query = f"select min(id), unnest(list(id)) from parts_of group by {_KEY} having count(*) > 1"
        return [(a, b) for a, b in self._connection.sql(query).fetchall() if a != b]

    def quarantined(self) -> int:
        """Rows set aside, of the sources given."""
        return int(self._connection.sql("select coalesce(sum(quarantined), 0) from source_states").fetchall()[0][0])

    def sources(self) -> list[dict[str, Any]]:
        """Each source given: id, state, why, partitions and rows in the lake."""
        return self._connection.sql("select id, state, why, parts, rows from source_states order by id").to_arrow_table().to_pylist()

    def _where(
        self, states: Sequence[str] = (), layers: Sequence[str] = (), symbols: Sequence[str] = (), start: str = "", end: str = ""
    ) -> tuple[str, list[Any]]:
        terms, values = [], list[Any]()
        for column, chosen in (("state", states), ("layer", layers), ("symbol", symbols)):
            if chosen:
                terms.append(f"{column} in (select unnest(?))")
                values.append(list(chosen))
        for operator, day in ((">=", start), ("<", end)):
            if day:
                terms.append(f"(date = '' or date {operator} ?)")
                values.append(day)
        return ("where " + " and ".join(terms) if terms else ""), values


def judge_orders(files: pa.Table, given: pa.Table, wanted: pa.Table, failed: pa.Table, options: Orders, starts_clean: Callable[[str], bool]) -> Plan:
    """A plan for order-by-order sources. starts_clean(path of events): asked only where footers do not tell whether a book needs the day before."""
    con = _connect(files, given, wanted, failed)
    con.register("other_wants", pa.table({"wanted": pa.array(options.other, pa.string())}))
    con.execute(
        f"""
        create table decoded as
            select dataset, source as short, {MARK_SQL} as mark, bool_and(code = '{CODE_VERSION}' and recipe = '{options.events}') as fits,
                count(*) as parts, sum(rows) as rows
            from files where layer = 'events' and inputs <> '' group by all;
        create table source_states as
            select g.id, case when s.path is null or s.inputs = '' then
                    case when g.error <> '' then 'failed' when o.name is not null then 'stale: source' else 'missing' end
                when s.code <> '{CODE_VERSION}' then 'stale: code'
                when s.recipe <> g.recipe or s.wanted in (select wanted from other_wants) or not coalesce(d.fits, true) then 'stale: recipe'
                when coalesce(d.mark, '') <> s.mark then 'stale: source' else 'done' end as state,
                case when s.path is null and g.error <> '' then g.error
                when s.path is null and o.name is not null then 'other content of this name'
                when s.path is null then 'not decoded' when coalesce(d.mark, '') <> s.mark then 'events files are not those that were decoded'
                else '' end as why, coalesce(s.quarantined, 0) as quarantined, coalesce(d.parts, 0) as parts, coalesce(d.rows, 0)::bigint as rows
            from given g left join files s on s.layer = 'sources' and s.dataset = g.dataset and s.source = g.short
            left join decoded d on d.dataset = g.dataset and d.short = g.short
            left join (select distinct dataset, name, source from files where layer = 'sources') o
                on s.path is null and o.dataset = g.dataset and o.name = g.name and o.source <> g.short
            qualify row_number() over (partition by g.id) = 1;
        create table parts_of as
            select g.id, f.dataset, f.date, f.symbol, f.publisher_id, f.instrument_id from files f join given g using (dataset)
            where f.layer = 'events' and f.source = g.short and f.inputs <> '';
        create table event_files as
            select {_KEY}, path, quarantined, first_ts, last_ts, '["' || inputs || '","' || recipe || '","' || code || '"]' as stamp
            from files where layer = 'events' and inputs <> '' and (dataset, source) in (select (dataset, short) from given);
        create table counted as
            select {_KEY}, count(*) as n, min(stamp) as stamp, sum(quarantined)::bigint as quarantined, min(path) as first_events
            from event_files group by {_KEY};
        create table parts as
            select {_KEY}, 0 as id, '' as kind, quarantined, first_events, stamp as stamps from counted where n = 1
            union all select {_KEY}, 0, '', sum(e.quarantined)::bigint, min(e.path), string_agg(e.stamp, ',' order by first_ts, last_ts, path)
            from event_files e join counted using ({_KEY}) where n > 1 group by {_KEY};
        """
    )
    _expect_books(con, options, starts_clean)
    return _finish(con, chained=True)


def _expect_books(con: duckdb.DuckDBPyConnection, options: Orders, starts_clean: Callable[[str], bool]) -> None:
    """Table `expected`: part, its digests as they should be, and the part whose closing book it goes on from."""
    con.register("book_recipes", pa.table({"date": list(options.books), "recipe": list(options.books.values())}))
    con.register("lost", _lost(con))
    con.execute(
        f"""
        -- Events of partitions that have several files: a book may be made from some of them only. As tasks/reconstruction/carry.py.
        create table spans as
            select {_KEY}, path, first_ts, last_ts, coalesce((dataset, source) in (select (dataset, short) from given), false) as given
            from files semi join (select {_KEY} from files where layer = 'events' and inputs <> '' group by all having count(*) > 1) using ({_KEY})
            where layer = 'events' and inputs <> '';
        create table late as
            select distinct {_KEY} from (select *, min(first_ts) filter (given) over (partition by {_KEY}) as first from spans)
            where not given and last_ts <= first and first_ts < first;
        create table early as
            select distinct {_KEY}, true as ends from (
                select s.*, contains(c.made_of, s.path) as used, max(last_ts) filter (contains(c.made_of, s.path)) over (partition by {_KEY}) as last
                from spans s join (select {_KEY}, made_of from files where layer = 'closing_book' and inputs <> '') c using ({_KEY})
            ) where not used and first_ts >= last and last_ts > last;
        create table closing as
            select dataset, symbol, publisher_id, instrument_id, date, max('["' || inputs || '","' || recipe || '","' || code || '"]') as stamp,
                bool_and(cut_rows = 0 and e.ends is null) as whole
            from files left join early e using ({_KEY}) where layer = 'closing_book' and inputs <> '' group by all;
        create table lone as
            select dataset, symbol, publisher_id, date, min(stamp) as stamp, bool_and(whole) as whole, min(instrument_id) as instrument_id
            from closing group by all having count(*) = 1;
        create table shared as
            select dataset, symbol, publisher_id, date from files where layer = 'events' group by all having count(distinct instrument_id) > 1;
        -- Days with rows of which no closing book tells, and the first day that may not go on from a book before them.
        create table gaps as
            with found as (
                select {_KEY}, strftime(date::date + interval 1 day, '%Y-%m-%d') as since
                from (select distinct {_KEY} from files where layer = 'events' and inputs <> '') anti join closing using ({_KEY})
                union all select * from lost
            ) select dataset, symbol, publisher_id, instrument_id, since, max(date) as date from found group by all;
        -- As tasks.partitions.continued: the same instrument, or the only one of its name, whichever is later.
        create table candidates as
            select p.*, b.inputs as book_inputs, b.recipe as book_recipe, coalesce(b.carry, '') as carry, coalesce(b.unclear, false) as unclear,
                s.date is null and coalesce(l.date, '') > coalesce(c.date, '') as by_name,
                case when by_name then l.date else c.date end as before_date, case when by_name then l.whole else c.whole end as whole,
                case when by_name then l.instrument_id else c.instrument_id end as before_id,
                case when before_date >= strftime(p.date::date - interval '{CARRY_DAYS} days', '%Y-%m-%d')
                    then case when before_date = c.date then c.stamp else l.stamp end end as found_stamp
            from parts p left join files b on b.layer = 'bbo' and b.inputs <> '' and (b.dataset, b.date, b.symbol, b.publisher_id, b.instrument_id)
                = (p.dataset, p.date, p.symbol, p.publisher_id, p.instrument_id)
            left join shared s on (s.dataset, s.symbol, s.publisher_id, s.date) = (p.dataset, p.symbol, p.publisher_id, p.date)
            asof left join closing c on c.dataset = p.dataset and c.symbol = p.symbol and c.publisher_id = p.publisher_id
                and c.instrument_id = p.instrument_id and p.date > c.date
            asof left join lone l on l.dataset = p.dataset and l.symbol = p.symbol and l.publisher_id = p.publisher_id and p.date > l.date;
        create table linked as
            select p.*, case when p.whole and t.date is null and coalesce(g.date, '') < before_date and coalesce(h.date, '') < before_date
                then found_stamp end as before_stamp
            from candidates p left join late t using ({_KEY})
            asof left join gaps g on g.dataset = p.dataset and g.symbol = p.symbol and g.publisher_id = p.publisher_id
                and g.instrument_id = p.instrument_id and p.date >= g.since
            asof left join gaps h on h.dataset = p.dataset and h.symbol = p.symbol and h.publisher_id = p.publisher_id
                and h.instrument_id = p.before_id and p.date >= h.since;
        """
    )
    rows = con.sql(
        f"select {_KEY}, stamps, coalesce(book_inputs, '') as bi, coalesce(book_recipe, '') as br, carry, unclear, before_stamp, first_events "
        "from linked"
    ).to_arrow_table()
    texts, carries = rows["stamps"].to_pylist(), []
    unknown = zip(*(rows[name].to_pylist() for name in ("carry", "unclear", "before_stamp", "first_events", "bi")), strict=True)
    for carry, unclear, before, first, book in unknown:
        # A book that was made with one needs it; one that was made without, and not from a clear or a snapshot, might need the one there is now.
        needs = bool(carry) or (bool(before) and unclear and book != "" and not starts_clean(first))
        carries.append(before if needs else None)
    expected = [_digest(f"[{text},{before}]" if before else f"[{text}]") for text, before in zip(texts, carries, strict=True)]
    derived = [_digest(f'["{i}","{r}"]') for i, r in zip(rows["bi"].to_pylist(), rows["br"].to_pylist(), strict=True)]
    made = (
        rows.select(_KEY.split(", ")).append_column("book", pa.array(expected, pa.string())).append_column("derived", pa.array(derived, pa.string()))
    )
    con.register("digests", made.append_column("chained", pa.array([c is not None for c in carries], pa.bool_())))
    con.execute(
        """
        create table expected as select d.*, coalesce(r.recipe, e.recipe) as books_recipe
        from digests d left join book_recipes r on r.date = d.date left join book_recipes e on e.date = ''
        """
    )
    con.unregister("digests")


def _lost(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Partitions of which a source has rows and no events file, and the first day that may not go on from a book before them: their own where
    rows were quarantined, of which nobody knows where they stood, the next where all came after the end of the range."""
    rows = []
    for dataset, text in con.sql("select dataset, left_out from files where layer = 'sources' and left_out <> ''").fetchall():
        for day, symbol, publisher, instrument, quarantined in json.loads(text):
            rows.append((dataset, day, symbol, publisher, instrument, day if quarantined else (date.fromisoformat(day) + timedelta(1)).isoformat()))
    kinds = {"dataset": pa.string(), "date": pa.string(), "symbol": pa.string(), "publisher_id": pa.int64(), "instrument_id": pa.int64(),
             "since": pa.string()}  # fmt: skip
    return pa.table([pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds.values())], names=list(kinds))


def judge_depth(files: pa.Table, given: pa.Table, wanted: pa.Table, failed: pa.Table, books: str) -> Plan:
    """A plan for depth feeds: one source a partition. books: digest of the options of the snapshot stage, for layers of role book."""
    con = _connect(files, given, wanted, failed)
    con.execute(
        """
        create table parts_of as select id, dataset, first_date as date, symbol, 0::bigint as publisher_id, 0::bigint as instrument_id from given;
        create table parts as
            select g.dataset, g.first_date as date, g.symbol, 0::bigint as publisher_id, 0::bigint as instrument_id, g.id, g.kind, g.fingerprint,
                coalesce(s.quarantined, 0) as quarantined
            from given g left join files s on s.layer = 'sources' and s.dataset = g.dataset and s.source = g.short where g.error = '';
        create table grids as
            select p.id, b.inputs as bi, b.recipe as br, coalesce(g.inputs, '') as gi, coalesce(g.recipe, '') as gr
            from parts p join files b on b.layer = 'depth-bbo' and b.dataset = p.dataset and b.date = p.date and b.symbol = p.symbol
            left join wanted w on w.kind = p.kind and w.role = 'grid'
            left join files g on g.layer = w.layer and g.dataset = p.dataset and g.date = p.date and g.symbol = p.symbol;
        """
    )
    grids = con.sql("select * from grids").to_arrow_table()
    quads = zip(*(grids[name].to_pylist() for name in ("bi", "br", "gi", "gr")), strict=True)
    derived = [_digest(f'[["{bi}","{br}"],["{gi}","{gr}"]]') for bi, br, gi, gr in quads]
    con.register("digests", pa.table({"id": grids["id"], "derived": pa.array(derived, pa.string())}))
    con.execute(
        f"""
        create table expected as select p.dataset, p.date, p.symbol, p.publisher_id, p.instrument_id, p.id, p.fingerprint as book,
            coalesce(d.derived, '') as derived, false as chained, '{books}' as books_recipe from parts p left join digests d using (id);
        create table source_states as select g.id, case when g.error <> '' then 'failed' else 'done' end as state, g.error as why,
            coalesce(p.quarantined, 0) as quarantined, 1 as parts, 0::bigint as rows from given g left join parts p using (id);
        """
    )
    con.unregister("digests")
    return _finish(con, chained=False)


def _connect(files: pa.Table, given: pa.Table, wanted: pa.Table, failed: pa.Table) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 2, "preserve_insertion_order": False})
    for name, table in (("files", files), ("given", given), ("wanted", wanted), ("failed", failed)):
        con.register(name, table)
    return con


def _finish(con: duckdb.DuckDBPyConnection, *, chained: bool) -> Plan:
    """Tables `judged` and `work` from `parts`, `expected` and `source_states`."""
    same = " and ".join(f"{{0}}.{name} = {{1}}.{name}" for name in _KEY.split(", "))
    own = "" if chained else " and e.id = p.id"
    roles = "w.role in ('book', 'grid')"
    con.execute(
        f"""
        create table compared as
            select p.dataset, p.date, p.symbol, p.publisher_id, p.instrument_id, p.id, p.quarantined, w.layer, w.role, e.chained,
                case when f.path is null or f.inputs = '' then 'missing' when f.code <> '{CODE_VERSION}' then 'stale: code'
                    when w.role <> 'account' and f.recipe <> case when {roles} and w.recipe = '' then e.books_recipe else w.recipe end
                        then 'stale: recipe'
                    when {roles} and f.inputs <> e.book or w.role = 'derived' and f.inputs <> e.derived then 'stale: source' else 'done' end as state
            from parts p join expected e on {same.format("e", "p")}{own} join wanted w on w.kind = p.kind
            left join files f on f.layer = w.layer and {same.format("f", "p")};
        create table book_states as
            select {_KEY}, id, bool_or(chained) as chained,
                coalesce(min(state) filter (state not in ('done', 'missing') and role in ('book', 'grid')),
                min(state) filter (state <> 'done' and role in ('book', 'grid')), 'done') as state
            from compared group by {_KEY}, id;
        """
    )
    # A book that goes on from one that is made anew is made anew, and so on along the days.
    along = "partition by dataset, symbol, publisher_id"
    con.execute(
        f"""
        create table books as
            with links as (select *, sum(case when chained then 0 else 1 end) over ({along} order by date, instrument_id) as chain from book_states)
            select {_KEY}, id, state, chained and coalesce(bool_or(state <> 'done') over ({along}, chain order by date, instrument_id
                rows between unbounded preceding and 1 preceding), false) as follows from links;
        create table judged as
            with told as (
                select c.*, b.state as book_state, b.follows from compared c join books b on {same.format("c", "b")} and c.id = b.id
            ), states as (
                select t.* exclude (state), case when t.state = 'missing' then 'missing'
                    when role in ('derived', 'account') and t.state in ('done', 'stale: source') and book_state <> 'done' then
                        case when book_state = 'missing' then 'stale: source' else book_state end
                    when follows and t.state = 'done' then 'stale: source' else t.state end as state,
                    case when follows and t.state = 'done' then 'goes on from a book that is made anew' else '' end as why from told t
            ), last_failed as (select {_KEY}, max(error) as error from failed where date <> '' group by all)
            select {_KEY}, s.id, layer,
                case when x.error is not null and (s.state <> 'done' or layer = 'ledger') then 'failed' else s.state end as state,
                case when x.error is not null and (s.state <> 'done' or layer = 'ledger') then x.error else s.why end as why, s.quarantined
            from states s left join last_failed x using ({_KEY});
        {_EVENTS if chained else ""}
        insert into judged
            select g.dataset, g.first_date, g.symbol, 0, 0, g.id, '{"events" if chained else "depth-bbo"}', s.state,
                g.name || case when s.why = '' then '' else ': ' || s.why end, s.quarantined
            from source_states s join given g using (id)
            where s.state <> 'done' {"and g.id not in (select id from parts_of)" if chained else ""};
        create table work as
            select o.id, j.date, j.state from judged j join parts_of o on {same.format("j", "o")} {"" if chained else "and j.id = o.id"}
            where j.state <> 'done'
            union all select g.id, g.first_date, s.state from source_states s join given g using (id) where s.state <> 'done';
        """
    )
    return Plan(con)


def _digest(text: str) -> str:
    """tasks.partitions.digest of a value whose JSON is at hand; half of the time of it goes into the JSON."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def starts_clean_of(lake: Path, read: Callable[[Path, Sequence[str]], bool]) -> Callable[[str], bool]:
    """read(lake, [events]) as a function of the path; a file that cannot be read needs nothing."""

    def asked(path: str) -> bool:
        try:
            return read(lake, [path])
        except (BookmillError, OSError):  # its run tells what is wrong with it
            return True

    return asked
