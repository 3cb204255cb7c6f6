"""Tables and figures of the benchmarks, as Markdown for the README and as one self-contained HTML page."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from vaegan_core.tensor_files import write_atomically

COLORS = ("#1f6feb", "#d1570c", "#2f9e44", "#9c36b5", "#c92a2a", "#0b7285", "#5c4813", "#495057")
GRAY = "#ced4da"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #212529; }
table { border-collapse: collapse; margin: 1em 0; } th, td { padding: .25em .8em; border-bottom: 1px solid #dee2e6; }
th { text-align: left; } td { text-align: right; } td:first-child { text-align: left; }
"""

Curve = tuple[list[int], list[float]]
"""Steps and values."""


@dataclass
class Section:
    """One measurement: what it shows, in words, one table and figures."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    figures: list[go.Figure] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _line(self.header), _line(["---"] * len(self.header))]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes), ""])

    def html(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        figures = "".join(figure.to_html(full_html=False, include_plotlyjs=False) for figure in self.figures)
        return f"<h2>{html.escape(self.title)}</h2><table><tr>{head}</tr>{body}</table>{notes}{figures}"


def write_page(path: Path, machine: str, sections: list[Section]) -> None:
    body = "".join(section.html() for section in sections)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>vaegan-search: benchmark</title>'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script>"
        f"<h1>How fast, and where the time goes</h1><p>{html.escape(machine)}</p>{body}</html>"
    )
    write_atomically(path, page.encode())


def bars(title: str, values: dict[str, float], spread: dict[str, tuple[float, float]] | None = None) -> go.Figure:
    """Horizontal bars, the first on top; `spread`: lowest and highest of each."""
    margin = {"l": 60, "r": 20, "t": 40, "b": 30}
    figure = go.Figure(
        layout={"template": "plotly_white", "title": title, "height": 80 + 28 * len(values), "margin": margin}
    )
    error = None
    if spread:
        above = [spread[name][1] - values[name] for name in values]
        below = [values[name] - spread[name][0] for name in values]
        error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    figure.add_bar(
        x=list(values.values()),
        y=list(values),
        orientation="h",
        error_x=error,
        marker_color=COLORS[0],
        showlegend=False,
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def overlaid(title: str, keys: tuple[str, ...], runs: dict[str, dict[str, Curve]], gray: set[str]) -> go.Figure:
    """One panel per curve; the runs named in `gray` are the background that the others are seen against."""
    figure = make_subplots(cols=len(keys), rows=1, subplot_titles=keys)
    colored = [name for name in runs if name not in gray]
    for name in [*sorted(gray & set(runs)), *colored]:
        color = GRAY if name in gray else COLORS[colored.index(name) % len(COLORS)]
        for column, key in enumerate(keys, start=1):
            if key not in runs[name]:
                continue
            steps, values = runs[name][key]
            figure.add_scatter(
                x=steps,
                y=values,
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                mode="lines",
                line={"color": color, "width": 5 if name in gray else 1.5},
                col=column,
                row=1,
            )
    figure.update_layout(template="plotly_white", title=title, height=420, legend={"orientation": "h", "y": -0.15})
    figure.update_yaxes(type="log")
    return figure


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
