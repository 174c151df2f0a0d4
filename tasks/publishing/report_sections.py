"""The sections of the run report, one function each: facts in, HTML out, everything escaped. Charts come from report_charts.py."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb

from tasks.partitions import Partition
from tasks.publishing.report_template import cell, definitions, table

FAILED = ("failed", "blocked", "crashed", "error")
MOST_ROWS = 200  # of any table; the rest is counted


def partition_of(entry: Mapping[str, Any]) -> Partition:
    """The partition that an entry of RunFacts.partitions is about."""
    return Partition(**{name: entry["partition"][name] for name in ("dataset", "date", "symbol", "publisher_id", "instrument_id")})


def has_failed(entry: Mapping[str, Any]) -> bool:
    """Whether this partition did not end well."""
    return bool(entry.get("error")) or str(entry.get("status", "")).lower() in FAILED


def rows_of(entry: Mapping[str, Any]) -> int:
    """Events of this partition: rows of its events output, else what its counts say went in, else rows of its largest output."""
    outputs = entry.get("outputs") or {}
    rows = {layer: int((output or {}).get("rows") or 0) for layer, output in outputs.items() if isinstance(output, Mapping)}
    return rows.get("events") or int((entry.get("counts") or {}).get("rows_in") or 0) or max(rows.values(), default=0)


def partitions(entries: Sequence[Mapping[str, Any]], lake: Path, report: Path, anchors: Mapping[Partition, str]) -> str:
    """One line per partition: outcome, counts, links to its files."""
    rows = []
    for entry in entries[:MOST_ROWS]:
        partition, counts = partition_of(entry), entry.get("counts") or {}
        anomalies = counts.get("anomalies") or {}
        total = sum(int(n) for n in anomalies.values()) if isinstance(anomalies, Mapping) else int(anomalies)
        name = cell(partition.symbol)
        if partition in anchors:
            name = f'<a href="#{anchors[partition]}">{name}</a>'
        rows.append(
            [
                name,
                cell(partition.dataset),
                f"<time>{cell(partition.date)}</time>",
                cell(partition.publisher_id),
                _status(entry),
                cell(rows_of(entry)),
                _book_statuses(counts),
                cell(counts.get("crossed")),
                cell(counts.get("locked")),
                cell(total, "warn" if total else ""),
                _links(entry, lake, report),
            ]
        )
    headers = ["symbol", "dataset", "date", "#publisher", "outcome", "#rows", "book rows by status", "#crossed", "#locked", "#anomalies", "files"]
    return table(headers, rows, "No partition was touched.") + _rest(len(entries))


def detail(entry: Mapping[str, Any], lake: Path, anchor: str, plots: Sequence[str]) -> str:
    """One partition: heatmap, charts (placeholders named in `plots`), anomalies."""
    partition, counts = partition_of(entry), entry.get("counts") or {}
    parts = [f'<h3 id="{anchor}">{escape(str(partition))}</h3>']
    picture = heatmap_path(entry, lake)
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode("ascii")
        parts.append(f'<img class="heatmap" alt="Heatmap of {escape(str(partition))}" src="data:image/png;base64,{data}">')
    else:
        parts.append('<p class="muted">No heatmap was drawn for this partition.</p>')
    parts += plots or ['<p class="muted">No book or bar layer to chart.</p>']
    anomalies = counts.get("anomalies") or {}
    if isinstance(anomalies, Mapping) and any(anomalies.values()):
        listed = ", ".join(f"{escape(str(name).replace('_', ' '))} {int(n):,}" for name, n in anomalies.items() if n)
        parts.append(f"<p>Anomalies: {listed}. Rows after them carry the status <code>suspect</code> until the next clear or snapshot.</p>")
    return "\n".join(parts)


def layers_of(entry: Mapping[str, Any], lake: Path) -> list[str]:
    """Layers among the outputs of a partition whose files are there, sorted."""
    return sorted(layer for layer, output in (entry.get("outputs") or {}).items() if (lake / output["path"]).is_file())


def heatmap_path(entry: Mapping[str, Any], lake: Path) -> Path | None:
    """The picture beside the heatmap grid among the outputs of a partition; one of an earlier run is none of its outputs."""
    grid = (entry.get("outputs") or {}).get("heatmap")
    picture = (lake / grid["path"]).with_suffix(".png") if grid else None
    return picture if picture is not None and picture.is_file() else None


def gates(reports: Sequence[Mapping[str, Any]]) -> str:
    """Every expectation that found something; those that held are counted per suite."""
    found, held = [], 0
    for report in reports:
        where = report.get("partition")
        where = where if isinstance(where, str) else str(Partition(**where)) if isinstance(where, Mapping) and where else ""
        for result in report.get("results") or []:
            if result.get("success"):
                held += 1
                continue
            tone = "bad" if result.get("consequence") == "block" else "warn"
            found.append(
                [
                    cell(report.get("suite")),
                    cell(where),
                    cell(result.get("name")),
                    cell(result.get("consequence"), tone),
                    cell(result.get("unexpected")),
                    cell(result.get("why")),
                    cell(result.get("look")),
                ]
            )
    summary = f"<p>Gates run: {len(reports):,}. Expectations that held: {held:,}; that did not: {len(found):,}.</p>"
    headers = ["table", "partition", "expectation", "consequence", "#unexpected rows", "why it is asked", "where to look"]
    body = table(headers, found[:MOST_ROWS], "Nothing unexpected.") if reports else '<p class="muted">No gate ran.</p>'
    return (summary if reports else "") + body + _rest(len(found))


def ledger(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows in = out + filtered + quarantined, with a tick or a cross per line."""
    lines, broken = [], 0
    for row in rows:
        in_, out, filtered, quarantined = (int(row.get(name) or 0) for name in ("rows_in", "rows_out", "rows_filtered", "rows_quarantined"))
        difference = in_ - out - filtered - quarantined
        broken += difference != 0
        mark = '<span class="good">&#10003;</span>' if difference == 0 else f'<span class="bad">&#10007; {difference:+,}</span>'
        where = f"{row.get('dataset', '')} {row.get('symbol', '')} {row.get('date', '')} p{row.get('publisher_id', '')}"
        lines.append(
            (difference == 0, [cell(where), cell(row.get("stage")), cell(in_), "=", cell(out), "+", cell(filtered), "+", cell(quarantined), mark])
        )
    lines.sort(key=lambda line: line[0])  # what does not add up stands first
    verdict = (
        f'<p class="good">All {len(rows):,} lines add up: no row was lost and none was counted twice.</p>'
        if not broken
        else f'<p class="bad">{broken:,} of {len(rows):,} lines do not add up. The partitions named first must be built again.</p>'
    )
    headers = ["partition", "stage", "#rows in", "", "#rows out", "", "#filtered", "", "#quarantined", "adds up"]
    return (verdict if rows else "") + table(headers, [line for _, line in lines[:MOST_ROWS]], "No ledger was given.") + _rest(len(lines))


def throughput(stages: Sequence[Mapping[str, Any]]) -> str:
    """Seconds, rows and rows a second of each stage, over all partitions."""
    totals: dict[str, list[float]] = {}
    for entry in stages:
        total = totals.setdefault(str(entry.get("stage", "")), [0, 0.0, 0, 0])
        for at, value in enumerate((1, entry.get("seconds") or 0, entry.get("rows") or 0, entry.get("bytes") or 0)):
            total[at] += value
    rows = [
        [
            cell(name),
            cell(int(n)),
            cell(f"{seconds:,.2f}"),
            cell(int(count)),
            cell(int(count / seconds) if seconds > 0 else None),
            cell(size(int(written))),
        ]
        for name, (n, seconds, count, written) in totals.items()
    ]
    headers = ["stage", "#runs", "#seconds", "#rows", "#rows a second", "#bytes"]
    return table(headers, rows, "No stage was timed: everything was done already.")


def certificates(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every book against every truth there was, those that differ first, with the first difference in full."""
    order = {"diverged": 0, "no_truth": 1, "matched": 2}
    ranked = sorted(rows, key=lambda r: (order.get(str(r["verdict"]), 0), r["truth"] == "integrity"))
    lines = []
    for row in ranked[:MOST_ROWS]:
        partition = partition_of({"partition": row})
        tone = {"matched": "good", "diverged": "bad"}.get(str(row["verdict"]), "warn")
        lines.append([
            cell(partition.symbol), f"<time>{cell(partition.date)}</time>", cell(partition.publisher_id), cell(row["truth"]), cell(row["source"]),
            cell(str(row["verdict"]).replace("_", " "), tone if row["truth"] != "integrity" or tone == "good" else "warn"),
            cell(row["states_matched"]), cell(row["states_compared"]), cell(row["levels_matched"]), cell(row["levels_compared"]),
            cell(row["last_good"]), cell(difference_text(row)), cell(row["wrong_spans"]),
        ])  # fmt: skip
    headers = ["symbol", "date", "#publisher", "truth", "source", "verdict", "#states equal", "#of", "#levels equal", "#of", "last good",
               "first difference", "#wrong spans"]  # fmt: skip
    note = '<p class="muted">Integrity (bid below ask after each event) is no independent truth: a crossed book can be real.</p>'
    return table(headers, lines, "No book was held against a truth.") + _rest(len(rows)) + note


def difference_text(row: Mapping[str, Any]) -> str:
    """The first difference in a sentence; empty when there is none."""
    if row["diverged_at"] is None:
        return ""
    # Depth feeds have scales of their own; everywhere else prices are 1e-9 and sizes whole.
    detail = json.loads(row.get("detail") or "{}")
    price_digits, size_digits = detail.get("price_digits", 9), detail.get("size_digits", 0)
    prices = {name: _decimal(row[f"{name}_px"], price_digits) for name in ("expected", "found")}
    if row["truth"] == "integrity":
        return f"{row['diverged_at']}, sequence {row['sequence']}: bid {prices['expected']}, ask {prices['found']}"
    side = "bid" if row["side"] == "B" else "ask"
    expected, found = (f"{_decimal(row[f'{name}_sz'], size_digits, ',')} at {prices[name]}" for name in ("expected", "found"))
    return f"{row['diverged_at']}, sequence {row['sequence']}: {side} level {row['level'] + 1} is {found}, the truth says {expected}"


def _decimal(value: int | None, digits: int, separator: str = "") -> str:
    """Units of 10^-digits as an exact decimal without trailing zeros; an empty level as a dash. separator: of thousands."""
    if value is None:
        return "-"
    text = f"{Decimal(value).scaleb(-digits):{separator}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def quarantine(connection: duckdb.DuckDBPyConnection, lake: Path, wanted: Sequence[Partition]) -> str:
    """Reasons, counts and places of the rows set aside, of the datasets and symbols of this run or of no known symbol."""
    files = _quarantine_files(lake, wanted)
    chosen = "FROM read_parquet($1, hive_partitioning = false, union_by_name = true, filename = true) WHERE symbol = '' OR list_contains($2, symbol)"
    values = [[str(f) for f in files], sorted({partition.symbol for partition in wanted})]
    result = []
    if files:
        result = connection.execute(
            f"""SELECT stage, reason, source, count(*), min(nullif(source_row, -1)), max(nullif(source_row, -1)), min(nullif(byte_offset, -1)),
                       any_value(nullif(detail, '')) {chosen} GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3""",
            values,
        ).fetchall()
    if not result:
        return '<p class="good">No row was set aside.</p>'
    holding = sorted(Path(name) for (name,) in connection.execute(f"SELECT DISTINCT filename {chosen}", values).fetchall())
    headers = ["stage", "reason", "source", "#rows", "#first source row", "#last source row", "#first byte", "for example"]
    places = "".join(f"<li><code>{escape(os.path.relpath(f, lake))}</code></li>" for f in holding[:20])
    more = f"<li>and {len(holding) - 20:,} more</li>" if len(holding) > 20 else ""
    rows = [[cell(value) for value in line] for line in result]
    return (
        table(headers, rows[:MOST_ROWS])
        + _rest(len(rows))
        + f"<p>Below the lake, with their bytes as they stood, they are in:</p><ul>{places}{more}</ul>"
    )


def errors(entries: Sequence[Mapping[str, Any]], rejected: Sequence[Mapping[str, Any]]) -> str:
    """What failed, in full: the messages name place and remedy themselves."""
    parts = [f"<h3>{escape(str(partition_of(e)))}</h3><pre>{escape(str(e.get('error') or e.get('status')))}</pre>" for e in entries if has_failed(e)]
    parts += [f"<h3>{escape(str(r.get('path', '')))} was not read</h3><pre>{escape(str(r.get('error', '')))}</pre>" for r in rejected]
    shown = parts[:MOST_ROWS]
    return ("\n".join(shown) if shown else '<p class="good">None.</p>') + _rest(len(parts))


def facts_list(values: Mapping[str, Any]) -> str:
    """Any small mapping as a list; nested ones with dotted names."""
    return definitions(_flat(values)) if values else '<p class="muted">Not recorded.</p>'


def size(count: int) -> str:
    """Bytes for reading: 1536 is "1.5 kB"."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    at = 0
    while value >= 1024 and at < len(units) - 1:
        value, at = value / 1024, at + 1
    return f"{value:,.0f} {units[at]}" if at == 0 else f"{value:,.1f} {units[at]}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else value if value != {} else None))
    return pairs


def _status(entry: Mapping[str, Any]) -> str:
    return cell(entry.get("status") or ("failed" if entry.get("error") else "done"), "bad" if has_failed(entry) else "good")


def _book_statuses(counts: Mapping[str, Any]) -> str:
    statuses = counts.get("statuses") or {}
    if not isinstance(statuses, Mapping):
        return cell(statuses)
    return ", ".join(f"{escape(str(name)).replace('_', ' ')}&nbsp;{int(n):,}" for name, n in statuses.items() if n) or cell(None)


def _links(entry: Mapping[str, Any], lake: Path, report: Path) -> str:
    links = []
    for layer, output in (entry.get("outputs") or {}).items():
        path = output.get("path") if isinstance(output, Mapping) else output
        if path:
            target = os.path.relpath(lake / str(path), report.parent)
            links.append(f'<a href="{escape(quote(target))}">{escape(str(layer))}</a>')
    return ", ".join(links) or cell(None)


def _quarantine_files(lake: Path, wanted: Sequence[Partition]) -> list[Path]:
    """Quarantine files of the datasets of these partitions."""
    folders = sorted({(lake / partition.path("quarantine")).parents[2] for partition in wanted})
    return sorted(f for folder in folders if folder.is_dir() for f in folder.rglob("*.parquet") if not f.name.startswith("."))


def _rest(count: int) -> str:
    return f'<p class="muted">{count - MOST_ROWS:,} more are not listed.</p>' if count > MOST_ROWS else ""
