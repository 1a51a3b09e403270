"""The report of an experiment as an HTML file with tables and plots, without network access or scripts."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping

from irc._version import __version__
from irc.diagnostics import printable
from irc.driver.experiment_report import ExperimentReport, Measurement
from irc.driver.printing import at_sizes, format_bytes, format_count, format_time

# Title, the plotted number, and its formatting.
FIGURES: tuple[tuple[str, Callable[[Measurement], float], Callable[[float], str]], ...] = (
    ("device operations", lambda each: each.device_operations, lambda number: f"{number:.0f}"),
    ("global memory traffic", lambda each: each.distinct_bytes, lambda number: format_bytes(int(number))),
    ("bytes loaded and stored", lambda each: each.loaded_bytes, lambda number: format_bytes(int(number))),
    ("estimated time", lambda each: each.estimated_microseconds, format_time),
)
BAR, GAP, LEFT, WIDTH, RIGHT = 18, 6, 110, 330, 80  # pixels: two plots side by side
STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --faint: #6b6b70; --back: #fff; --line: #d8d8dc; --base: #8a8f98;
        --other: #2f6fde; --bad: #c0362c; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf0; --faint: #a0a0a8; --back: #17171a; --line: #3a3a40;
        --base: #7c828c; --other: #6ea1ff; --bad: #ff7b70; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 2rem auto;
       max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: bottom; }
td { white-space: nowrap; } th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
.faint { color: var(--faint); } .bad { color: var(--bad); }
figure { display: inline-block; margin: .8rem 1rem .5rem 0; } figcaption { font-size: 13px; color: var(--faint); }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); } svg { max-width: 100%; }
.base { fill: var(--base); } .other { fill: var(--other); }
"""


def page(report: ExperimentReport) -> str:
    """The report as HTML."""
    parts = [f'<p class="faint">{escape(report.label)}. Device: {escape(report.device_summary)}.</p>',
             "<h2>Pipelines</h2><dl>"]
    parts += [f"<dt>{escape(name)}</dt><dd><code>{escape(text)}</code></dd>" for name, text in report.pipelines.items()]
    parts.append("</dl>")
    for case in report.cases:
        row = case.measured
        parts.append(f"<h2>{escape(case.model)}</h2>")
        parts.append(f'<p class="faint">{escape(at_sizes(case.sizes).strip())}</p>')
        parts.append(_table(row))
        drawn = {name: each for name, each in row.items() if not each.failure}
        parts += [_plot(title, {name: value(each) for name, each in drawn.items()}, text)
                  for title, value, text in FIGURES]  # fmt: skip
        for name, lines in case.plans.items():
            if lines:
                items = "".join(f"<li><code>{escape(line)}</code></li>" for line in lines)
                parts.append(f"<h3>Differences of the plan of {escape(name)}</h3><ul>{items}</ul>")
    title = f"irc experiment: {', '.join(report.pipelines)}"
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"/><title>{escape(title)}</title>'
            f'<meta name="viewport" content="width=device-width"/><style>{STYLE}</style></head>\n<body>'
            f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + f'\n<p class="faint">irc {__version__}</p>'
            "\n</body>\n</html>\n")  # fmt: skip


def escape(text: str) -> str:
    """Text as HTML without markup, control characters or changes of direction."""
    return html.escape(printable(text))


def _table(row: Mapping[str, Measurement]) -> str:
    heads = ("", "launches", "library calls", "host operations", "global memory traffic", "loaded and stored", "flops",
             "smallest grid", "estimated", "compile time", "error against f64")  # fmt: skip
    lines = ["<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"]
    for name, each in row.items():
        if each.failure:
            lines.append(f'<tr><td>{escape(name)}</td><td class="bad" colspan="10">{escape(each.failure)}</td></tr>')
            continue
        cells = (each.kernels, each.library_calls, each.host_operations, format_bytes(each.distinct_bytes),
                 format_bytes(each.loaded_bytes), format_count(each.flops), each.programs,
                 format_time(each.estimated_microseconds), f"{each.compile_seconds:.2f} s",
                 f"{each.error:.1e}")  # fmt: skip
        lines.append(f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _plot(title: str, values: Mapping[str, float], text: Callable[[float], str]) -> str:
    """Horizontal bars from zero, one for each pipeline."""
    largest = max(values.values(), default=0.0)
    height = len(values) * (BAR + GAP)
    bars = []
    for index, (name, value) in enumerate(values.items()):
        top, length = index * (BAR + GAP), WIDTH * value / largest if largest else 0.0
        kind = "other" if index else "base"
        bars.append(f'<text x="{LEFT - 8}" y="{top + BAR - 5}" text-anchor="end">{escape(name[:20])}</text>'
                    f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}">'
                    f"<title>{escape(name)}: {text(value)}</title></rect>"
                    f'<text x="{LEFT + length + 6:.1f}" y="{top + BAR - 5}">{text(value)}</text>')
    width = LEFT + WIDTH + RIGHT
    return (f'<figure><figcaption>{escape(title)}</figcaption><svg role="img" aria-label="{escape(title)}" '
            f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">{"".join(bars)}</svg></figure>')
