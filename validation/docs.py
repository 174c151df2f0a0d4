"""Data Docs of gates: one HTML page that needs no network. The tables are Great Expectations' own rendering; the shell and styles are ours.

The library's site takes its styles, scripts and logo from nine outside hosts and is unreadable without them. Here its renderer makes the
sections only, and the page forbids the browser to load anything (Content-Security-Policy), so that reading a report tells nobody of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from tasks.storage import atomic_file
from validation.gate import GateReport, Outcome
from validation.judge import LOCK
from validation.quiet import great_expectations

PAGE = "gates.html"
_FILES_SHOWN = 20
_LOADING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href", "ping", "manifest"}

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2430; background: #fff; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #d5dbe3; } h5, h6 { font-size: 1rem; margin: .8rem 0 .2rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #e4e8ee; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } code { overflow-wrap: anywhere; } ul { margin: 0; padding-left: 1.1rem; }
.chip { border-radius: .6rem; padding: .1rem .55rem; font-size: .85rem; color: #fff; background: #2e7d46; } .warn { background: #a15c00; } .blocked { background: #b3261e; }
.fa-times::before { content: "\\2717"; color: #b3261e; } .fa-check-circle::before { content: "\\2713"; color: #2e7d46; } .fa-exclamation-triangle::before { content: "!"; }
details { margin: .8rem 0; } summary { cursor: pointer; }
"""  # noqa: E501

_HEAD = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Bookmill gates</title><style>{_STYLE}</style></head><body>
<h1>Gates</h1>
"""


def write_data_docs(reports: Sequence[GateReport], folder: Path) -> Path:
    """Write `folder`/gates.html with every report, in order, and return its path. Raises StorageError when it cannot be written."""
    with LOCK:
        great_expectations()
        page = _HEAD + "\n".join(_report(report) for report in reports) + "\n</body></html>\n"
    outside = outside_references(page)
    if outside:
        raise RuntimeError(f"Data Docs would load {', '.join(outside)}; the renderer of this Great Expectations version needs another filter")
    path = Path(folder) / PAGE
    with atomic_file(path) as file:
        file.write(page.encode())
    return path


def outside_references(page: str) -> list[str]:
    """Every address in `page` that a browser would load or follow away from it (anchors within the page are none), and every script."""
    reader = _References()
    reader.feed(page)
    return reader.found


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        if tag in ("script", "iframe", "object", "embed", "base"):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            text = value or ""
            if (name in _LOADING and not text.startswith("#")) or (name == "style" and "url(" in text) or name.startswith("on"):
                self.found.append(f"{tag} {name}={text}")

    def handle_data(self, data: str) -> None:
        if self._in_style and ("url(" in data or "@import" in data):
            self.found.append("style sheet with an address")
        self._in_style = False


def _report(report: GateReport) -> str:
    status = {"ok": "", "warn": "warn", "blocked": "blocked"}[report.status]
    rows = "".join(_row(outcome) for outcome in (*report.failed, *(r for r in report.results if r.success)))
    aside = sum(len(bad.rows) for bad in report.quarantine.values())
    unjudged = len(report.unjudged_files)
    return (
        f"<section><h2>{escape(report.suite)} <span class='chip {status}'>{report.status}</span></h2>"
        f"<p>{report.rows:,} rows in {report.files:,} files; {aside:,} rows to quarantine; {len(report.blocked_files):,} files blocked"
        f"{f'; {unjudged:,} of them could not be judged on their rows' if unjudged else ''}.</p>"
        "<table><thead><tr><th>Expectation</th><th>If it fails</th><th>Verdict</th><th>Unexpected</th><th>Why, and where to look</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        f"<details><summary>Validation result of Great Expectations</summary>{_rendered(report)}</details></section>"
    )


def _row(outcome: Outcome) -> str:
    words = escape(outcome.why)
    if not outcome.success:
        files = list(outcome.by_file.items())
        listed = "".join(f"<li><code>{escape(path)}</code>: {count:,}</li>" for path, count in files[:_FILES_SHOWN])
        more = f"<li>and {len(files) - _FILES_SHOWN:,} more files</li>" if len(files) > _FILES_SHOWN else ""
        words += f"<br>First: <code>{escape(outcome.example)}</code><br>Look at: {escape(outcome.look)}<ul>{listed}{more}</ul>"
    verdict = "holds" if outcome.success else f"<span class='chip {'blocked' if outcome.consequence == 'block' else 'warn'}'>fails</span>"
    return (
        f"<tr><td>{escape(outcome.name)}</td><td>{outcome.consequence}</td><td>{verdict}</td>"
        f"<td class='number'>{outcome.unexpected:,}</td><td>{words}</td></tr>"
    )


def _rendered(report: GateReport) -> str:
    """The library's sections of one validation, without its links (they lead into a site that is not there) and repeated ids."""
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult, expectationSuiteValidationResultSchema
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaSectionView

    loaded = expectationSuiteValidationResultSchema.load(report.validation)
    result = ExpectationSuiteValidationResult(**loaded) if isinstance(loaded, dict) else loaded
    view = DefaultJinjaSectionView()
    sections = ValidationResultsPageRenderer(run_info_at_end=True).render(result).sections
    text = "".join(
        view.render({"section": section.to_json_dict(), "section_loop": {"index": number}}) for number, section in enumerate(sections, start=1)
    )
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
    text = re.sub(r"<a\b[^>]*>(.*?)</a>", r"\1", text, flags=re.DOTALL)
    return re.sub(r"""\s(?:id|data-[\w-]+|aria-[\w-]+)=(?:"[^"]*"|'[^']*'|[^\s>]+)""", "", text)
