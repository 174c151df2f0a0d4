"""The HTML page round every published view: one file, plotly.js inlined, no request to anywhere. Text in, text out; no data access."""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from html import escape
from typing import Any

import numpy as np
from plotly.offline import get_plotlyjs

# The browser itself refuses every load that is not in the file; plotly's WebGL traces compile functions at run time ("unsafe-eval").
CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; worker-src blob:"
)
PLOT_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    "scrollZoom": True,
    "showSendToCloud": False,
    "showEditInChartStudio": False,
    "plotlyServerURL": "",
    "topojsonURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "sendDataToCloud"],
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

STYLE = """
:root{--ink:#1c2026;--muted:#5f6873;--line:#dfe3e8;--soft:#f6f7f9;--good:#0a7a45;--bad:#b3261e;--warn:#9a5b00;--link:#0b57d0}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:var(--ink);font:15px/1.5 FONT}
main{max-width:1240px;margin:0 auto;padding:28px 20px 64px}
h1{font-size:27px;line-height:1.25;margin:0 0 4px;font-weight:650;letter-spacing:-.01em}
h2{font-size:20px;margin:44px 0 10px;padding-top:18px;border-top:1px solid var(--line);font-weight:650}
h3{font-size:16px;margin:26px 0 8px;font-weight:650}
p{margin:6px 0 12px;max-width:82ch}
a{color:var(--link)}
nav{margin:14px 0 0;font-size:14px}
nav a{margin-right:16px;text-decoration:none}
nav a:hover{text-decoration:underline}
.muted{color:var(--muted)}
.verdict{display:inline-block;margin:12px 0 4px;padding:6px 14px;border-radius:6px;font-weight:600}
.verdict.good{background:#e5f5ec;color:var(--good)}
.verdict.bad{background:#fdeceb;color:var(--bad)}
.verdict.warn{background:#fff3e0;color:var(--warn)}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:16px 0 6px}
.card{border:1px solid var(--line);border-radius:8px;padding:10px 14px;background:var(--soft)}
.card b{display:block;font-size:21px;line-height:1.3;font-weight:650;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.card span{color:var(--muted);font-size:13px}
.scroll{overflow-x:auto;margin:8px 0 14px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--muted);white-space:nowrap;border-bottom:2px solid var(--line)}
time{white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
tbody tr:hover{background:var(--soft)}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:13px}
pre{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:10px 14px;
  overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 18px;margin:8px 0 14px;font-size:14px}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
img.heatmap{width:100%;height:auto;border:1px solid var(--line);border-radius:6px;display:block}
.plot{width:100%;min-height:300px}
details>summary{cursor:pointer;color:var(--link);margin:8px 0}
@media print{nav{display:none}h2{break-after:avoid}}
""".replace("FONT", FONT)


@lru_cache(maxsize=1)
def plotly_script() -> str:
    """plotly.js as shipped with the plotly package (4.8 MB), read once."""
    return get_plotlyjs()


def page(title: str, body: str, *, script: str = "", style: str = "", with_plotly: bool = True) -> str:
    """A whole HTML document. `title` is escaped here; `body`, `script` and `style` are taken as they are."""
    library = f"<script>{plotly_script()}</script>\n" if with_plotly else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n{library}<script>\n{script}\n</script>\n</body>\n</html>\n"
    )


def script_json(value: Any) -> str:
    """`value` as JSON that is safe inside a script element: no tag can end it and no comment can open in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def typed(array: np.ndarray) -> dict[str, str]:
    """A numeric array as Plotly's typed-array JSON (little-endian, base64)."""
    kind = {"i2": "i2", "i4": "i4", "f4": "f4", "f8": "f8", "u1": "u1", "u2": "u2", "u4": "u4", "i1": "i1"}[array.dtype.str[1:]]
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    out = {"dtype": kind, "bdata": base64.b64encode(little.tobytes()).decode("ascii")}
    if array.ndim > 1:
        out["shape"] = ", ".join(str(n) for n in array.shape)
    return out


def table(headers: list[str], rows: list[list[str]], empty: str = "None.") -> str:
    """An HTML table; a header that begins with # is of a column of numbers. Headers are escaped here, cells are HTML already (use `cell`)."""
    if not rows:
        return f'<p class="muted">{escape(empty)}</p>'
    numeric = [' class="n"' if name.startswith("#") else "" for name in headers]
    head = "".join(f"<th{mark}>{escape(name.removeprefix('#'))}</th>" for name, mark in zip(headers, numeric, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td{mark}>{value}</td>" for value, mark in zip(row, numeric, strict=True)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def cell(value: Any, tone: str = "") -> str:
    """`value` escaped for HTML; integers with thousands separators; None as a dash; tone: good, bad, warn, muted or nothing."""
    if value is None or value == "":
        text = "&ndash;"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    else:
        text = escape(str(value))
    return f'<span class="{tone}">{text}</span>' if tone else text


def definitions(pairs: list[tuple[str, Any]]) -> str:
    """A list of names and values, both escaped."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{cell(value)}</dd>" for name, value in pairs) + "</dl>"
