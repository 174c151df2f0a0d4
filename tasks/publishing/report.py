"""The report of a run: what was asked, what came of it, and the proof, as one offline HTML file, as Markdown and as rows. No Prefect here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.partitions import Partition
from tasks.publishing import report_charts, report_sections
from tasks.publishing.report_template import PLOT_CONFIG, cell, page, script_json
from tasks.storage import atomic_file

DETAILED = 6  # partitions with heatmap and charts; the others are listed


@dataclass(frozen=True)
class RunFacts:
    """All that a run says about itself; JSON-able.

    started, finished: ISO times; verdict: a sentence, derived from the partitions when empty; stages: {stage, partition, seconds, rows, bytes};
    partitions: {partition: fields of Partition, status, error, outputs: {layer: {path relative to the lake, rows}}, counts: {crossed, locked,
    anomalies: {name: n}, statuses: {name: n}}}; gates: {suite, partition, status, rows, results: [{name, consequence, success, unexpected,
    why, look}]}; ledger: rows of schema LEDGER; memory: (seconds since the start, resident bytes); rejected: {path, error} of sources that
    could not be read; certificates: rows of schema CERTIFICATE, times as ISO text. Anything may be empty.
    """

    run_id: str
    command: str = ""
    started: str = ""
    finished: str = ""
    verdict: str = ""
    code: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    partitions: list[dict[str, Any]] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    certificates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Partitions that did not end well."""
        return sum(map(report_sections.has_failed, self.partitions))

    @property
    def broken(self) -> int:
        """Lines of the ledger in which rows in differ from rows out + filtered + quarantined."""
        return sum(int(row["rows_in"]) != sum(int(row[name]) for name in ("rows_out", "rows_filtered", "rows_quarantined")) for row in self.ledger)

    @property
    def sentence(self) -> str:
        """The verdict as given, else from the outcome of the partitions and sources."""
        if self.verdict:
            return self.verdict
        total, refused = len(self.partitions), len(self.rejected)
        whole = f"All {total:,} partitions are done" if total != 1 else "The one partition is done"
        done = whole if not self.failed else f"{self.failed:,} of {total:,} partitions failed"
        done += f"; {refused:,} source{'s' if refused > 1 else ''} could not be read" if refused else ""
        return done + ("; the ledger does not add up" if self.broken else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `from_json` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RunFacts:
        """The facts that `to_json` gave; unknown names are ignored, so that an older program reads a newer run."""
        known = {f.name for f in fields(RunFacts)}
        return RunFacts(**{name: value for name, value in values.items() if name in known})


_SCRIPT = """
const CONFIG = %s;
const FIGURES = %s;
// Charts are drawn when they come near the window: forty at once would block a laptop for seconds.
const draw = f => Plotly.newPlot(f.id, f.data, f.layout, CONFIG);
const seen = new IntersectionObserver((entries, self) => {
  for (const e of entries) if (e.isIntersecting) { self.unobserve(e.target); draw(FIGURES.find(f => f.id === e.target.id)); }
}, {rootMargin: "600px"});
for (const f of FIGURES) {
  const node = document.getElementById(f.id);
  node.style.height = f.height + "px";
  node.style.minHeight = f.height + "px";
  seen.observe(node);
}
window.addEventListener("beforeprint", () => FIGURES.forEach(draw));
"""


_SHADING = '<p class="muted">Shaded: stretches with book rows that are not valid. Points are means over equal stretches of time.</p>'


def write_report(facts: RunFacts, lake: Path, path: Path) -> None:
    """Write the report of `facts` with heatmaps, charts and quarantine from `lake` into the HTML file `path`; it loads nothing from outside.

    Charts and heatmaps are of the outputs of each entry, not of what else the lake has; files that do not exist are left out. The DETAILED largest
    partitions, failed ones first, get pictures; the table has all. Raises StorageError when `path` cannot be written.
    """
    entries = sorted(
        facts.partitions, key=lambda e: (not report_sections.has_failed(e), -report_sections.rows_of(e), report_sections.partition_of(e))
    )
    detailed = list(islice((e for e in entries if report_sections.layers_of(e, lake)), DETAILED))
    anchors = {report_sections.partition_of(e): f"partition-{i}" for i, e in enumerate(detailed)}
    figures: list[dict[str, Any]] = []

    def plot(name: str, figure: report_charts.Figure | None) -> str:
        if figure is None:
            return ""
        layout = {**figure["layout"], "autosize": True, "height": figure["height"]}
        figures.append({"id": name, "data": figure["data"], "layout": layout, "height": figure["height"]})
        return f'<div class="plot" id="{name}"></div>'

    with report_charts.connect() as connection:
        details = []
        for entry in detailed:
            partition = report_sections.partition_of(entry)
            layers, anchor = report_sections.layers_of(entry, lake), anchors[partition]
            charts: dict[str, report_charts.Figure | None] = dict(report_charts.book_figures(connection, lake, partition, layers))
            charts["bars"] = report_charts.bar_figure(connection, lake, partition, layers)
            drawn = [text for name, figure in charts.items() if (text := plot(f"{anchor}-{name}", figure))]
            details.append(report_sections.detail(entry, lake, anchor, drawn))
        others = [str(p) for e in entries if (p := report_sections.partition_of(e)) not in anchors]
        if others:
            listed = "".join(f"<li>{escape(name)}</li>" for name in others)
            details.append(f"<details><summary>{len(others):,} partitions without pictures here</summary><ul>{listed}</ul></details>")
        if not facts.partitions:
            details.append('<p class="muted">None.</p>')
        sections = (
            ("Errors", report_sections.errors(entries, facts.rejected)),
            ("Partitions", report_sections.partitions(entries, lake, path, anchors)),
            ("Books and bars", _SHADING + "\n".join(details) if detailed else "\n".join(details)),
            ("Certificates", report_sections.certificates(facts.certificates)),
            ("Data quality", report_sections.gates(facts.gates)),
            ("Ledger", report_sections.ledger(facts.ledger)),
            ("Quarantine", report_sections.quarantine(connection, lake, [report_sections.partition_of(e) for e in entries])),
            ("Throughput", plot("throughput", report_charts.throughput_figure(facts.stages)) + report_sections.throughput(facts.stages)),
            ("Memory", plot("memory", report_charts.memory_figure(facts.memory)) or '<p class="muted">Not recorded.</p>'),
            ("What was run", _asked(facts)),
        )
    body = f"<main>\n{_head(facts, [name for name, _ in sections])}\n" + "\n".join(
        f'<section><h2 id="{_anchor(name)}">{escape(name)}</h2>\n{text}\n</section>' for name, text in sections
    )
    text = page(
        f"Bookmill run {facts.run_id}", body + "\n</main>", script=_SCRIPT % (script_json({**PLOT_CONFIG, "scrollZoom": False}), script_json(figures))
    )
    with atomic_file(path) as file:
        file.write(text.encode())


def markdown_summary(facts: RunFacts, most: int = 50) -> str:
    """The run in Markdown, for a Prefect artifact: verdict, numbers, a table of partitions, what failed."""
    lines = [
        f"# {_md(facts.sentence)}",
        "",
        f"Run {_md(facts.run_id)}, {_md(report_charts.moment(facts.started))} to {_md(report_charts.moment(facts.finished))}",
        "",
    ]
    lines += [f"- **{name}**: {_md(value)}" for name, value in _numbers(facts)]
    rows = table_rows(facts)
    if rows:
        lines += ["", "| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
        lines += ["| " + " | ".join(_md(f"{v:,}" if isinstance(v, int) else v) for v in row.values()) + " |" for row in rows[:most]]
        if len(rows) > most:
            lines += ["", f"{len(rows) - most:,} more partitions are in the report."]
    for heading, found in (
        (
            "Failed",
            [(str(report_sections.partition_of(e)), e.get("error") or e.get("status")) for e in facts.partitions if report_sections.has_failed(e)],
        ),
        ("Not read", [(r.get("path"), r.get("error")) for r in facts.rejected]),
    ):
        if found:
            lines += ["", f"## {heading}", ""] + [f"- **{_md(name)}**: {_md(problem)}" for name, problem in found[:most]]
    return "\n".join(lines) + "\n"


def table_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """One flat row per partition, for a Prefect table artifact."""
    rows = []
    for entry in facts.partitions:
        partition, counts = report_sections.partition_of(entry), entry.get("counts") or {}
        anomalies = counts.get("anomalies") or {}
        rows.append(
            {
                "dataset": partition.dataset, "symbol": partition.symbol, "date": partition.date, "publisher": partition.publisher_id,
                "outcome": str(entry.get("status") or ("failed" if entry.get("error") else "done")), "rows": report_sections.rows_of(entry),
                "crossed": int(counts.get("crossed") or 0), "locked": int(counts.get("locked") or 0),
                "anomalies": sum(anomalies.values()) if isinstance(anomalies, Mapping) else int(anomalies),
            }
        )  # fmt: skip
    return rows


def _numbers(facts: RunFacts) -> list[tuple[str, str]]:
    """The run in a handful of numbers; those that are not known are left out."""
    missed = [r for g in facts.gates for r in g.get("results") or [] if not r.get("success")]
    seconds = sum(float(s.get("seconds") or 0) for s in facts.stages)
    numbers = [
        ("partitions", f"{len(facts.partitions):,}"),
        ("rows", f"{sum(map(report_sections.rows_of, facts.partitions)):,}"),
        ("ledger", f"{facts.broken:,} broken" if facts.broken else "adds up" if facts.ledger else ""),
        ("quarantined rows", f"{sum(int(row['rows_quarantined']) for row in facts.ledger):,}" if facts.ledger else ""),
        ("expectations missed", f"{len(missed):,}" if facts.gates else ""),
        ("books certified", _certified(facts)),
        ("seconds of work", f"{seconds:,.1f}" if seconds else ""),
        ("largest memory", report_sections.size(int(max(m for _, m in facts.memory))) if facts.memory else ""),
    ]
    return [(name, value) for name, value in numbers if value]


def _certified(facts: RunFacts) -> str:
    """How many partitions have a truth that matches, and what of the others; empty when none was looked for."""
    verdicts: dict[Partition, str] = {}
    for row in facts.certificates:
        partition = report_sections.partition_of({"partition": row})
        if row["truth"] != "integrity" and verdicts.get(partition) != "diverged":
            verdicts[partition] = row["verdict"]
    said = list(verdicts.values())
    parts = [f"{said.count('matched'):,} of {len(said):,}"] if said else []
    parts += [f"{n:,} {text}" for verdict, text in (("diverged", "differ"), ("no_truth", "without a truth")) if (n := said.count(verdict))]
    return ", ".join(parts)


def certificate_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """One flat row per partition and truth, for a Prefect table artifact."""
    names = ("symbol", "date", "publisher_id", "truth", "verdict", "states_compared", "states_matched", "levels_compared", "levels_matched",
             "last_good", "diverged_at", "source")  # fmt: skip
    return [{name: row[name] for name in names} for row in facts.certificates]


def _head(facts: RunFacts, names: list[str]) -> str:
    tone = "bad" if facts.failed or facts.broken else "warn" if facts.rejected else "good"
    when = " to ".join(report_charts.moment(t) for t in (facts.started, facts.finished) if t)
    cards = "".join(f'<div class="card"><b>{cell(value)}</b><span>{escape(name)}</span></div>' for name, value in _numbers(facts))
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in names)
    return (
        f'<h1>Bookmill run {escape(facts.run_id)}</h1><p class="muted">{escape(when)}</p><div class="verdict {tone}">{escape(facts.sentence)}</div>'
        f'<div class="cards">{cards}</div><nav>{links}</nav>'
    )


def _asked(facts: RunFacts) -> str:
    command = f"<pre>{escape(facts.command)}</pre>" if facts.command else ""
    recipe = f"<h3>Recipe</h3>{report_sections.facts_list(facts.recipe)}<h3>Hardware</h3>{report_sections.facts_list(facts.hardware)}"
    return command + report_sections.facts_list({"code version": facts.code or None}) + recipe


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _md(value: Any) -> str:
    """Text that Markdown leaves alone: no table, tag or emphasis can start in it."""
    text = str("" if value is None else value).replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\|`*_[]#" else c for c in text)


def partition_fields(partition: Partition) -> dict[str, Any]:
    """`partition` as RunFacts.partitions hold it."""
    return asdict(partition)
