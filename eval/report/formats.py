"""Tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from kdiff.eval.report.across import NFE
from kdiff.eval.report.cells import Result, modifications
from kdiff.eval.report.tables import FAILED, MISSING, Row, Table
from kdiff.eval.sweep.cell_line import MODIFICATIONS


def to_csv(tables: Sequence[Table]) -> str:
    """A line for each cell, with all digits of its figure, or why there is none. If a table
    is by an option, two more columns say by which, and at which of its values."""
    text = io.StringIO()
    option = ("by", "at") if any(table.across is not NFE for table in tables) else ()
    out = csv.DictWriter(text, [*option, *CSV_COLUMNS], lineterminator="\n")
    out.writeheader()
    for table in tables:
        for row in table.rows:
            for column, result in sorted(row.results.items()):
                out.writerow(_csv_line(table, row, column, result))
    return text.getvalue()


CSV_COLUMNS = (
    *("metric", "model", "n", "row", "sampler", "nfe", "value", "error", "repeats", "best"),
    *("status", "reason", "noise_floor", "steps", "schedule", "final", "options", "first_seeds"),
    *("features", "resize", "reference", "model_sha256"),
    *("guidance", "edits", "asks", "nfe_most"),
)


def _csv_line(table: Table, row: Row, column: float, result: Result) -> dict[str, Any]:
    cell, figure = result.cell, table.figure(row, column)
    features, reference = cell.get("features") or {}, cell.get("reference") or {}
    line: dict[str, Any] = {
        **{key: cell.get(key) for key in ("sampler", "asks", "steps", "schedule", "final")},
        **{key: " ".join(modifications(cell, key)) for key in MODIFICATIONS},
        **{"nfe": result.nfe, "nfe_most": result.most},
        **{"metric": table.metric, "model": table.model, "n": table.n, "row": row.label},
        "status": "ok" if figure else FAILED if result.failures else "missing",
        "reason": "; ".join(failure.error for failure in result.failures),
        "best": int(table.is_best(row, column)),
        "noise_floor": result.noise_floor.get(table.metric),
        "options": json.dumps(cell.get("options") or {}),
        "first_seeds": " ".join(map(str, result.first_seeds)),
        "features": features.get("name"),
        "resize": features.get("resize"),
        "reference": reference.get("name"),
        "model_sha256": cell["model"].get("sha256"),
    }
    if table.across is not NFE:
        line |= {"by": table.across.name, "at": column}
    if figure:
        line |= {"value": figure.value, "error": figure.error, "repeats": figure.repeats}
    return line


def to_markdown(tables: Sequence[Table]) -> str:
    """Each table under its title, aligned so that it reads as plain text too."""
    return "\n\n".join(map(_markdown, tables)) + "\n"


def _markdown(table: Table) -> str:
    headings = [_plain(table.heading(column)).replace("|", "\\|") for column in table.columns]
    lines = [["sampler", *headings]]
    for row in table.rows:
        texts = [table.text(row, column) for column in table.columns]
        best = [table.is_best(row, column) for column in table.columns]
        bold = [f"**{text}**" if b else text for text, b in zip(texts, best, strict=True)]
        lines.append([_code(row.label), *bold])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |"
        for line in lines
    ]
    rule = "|:" + "-" * (widths[0] + 1) + "".join(f"|{'-' * (w + 1)}:" for w in widths[1:]) + "|"
    head = [f"### {_plain(table.title)}", "", aligned[0], rule, *aligned[1:], ""]
    return "\n".join([*head, _plain(table.caption)])


def _code(text: str) -> str:
    """A code span, which shows everything as it is; GFM wants bars escaped even there."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_<>\[\]~&#$])", r"\\\1", " ".join(text.split()))


def to_latex(tables: Sequence[Table]) -> str:
    """A table environment each, for the booktabs package."""
    return "% \\usepackage{booktabs}\n" + "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    lines = [
        " & ".join(map(tex, ["sampler", *map(table.heading, table.columns)])) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        texts = [tex(table.text(row, column)) for column in table.columns]
        for i, column in enumerate(table.columns):
            if table.is_best(row, column):
                texts[i] = rf"\textbf{{{texts[i]}}}"
        lines.append(" & ".join([tex(row.label), *texts]) + r" \\")
    body = "\n".join(lines)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{tex(table.title)}. {tex(table.caption)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}\n\\toprule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"±": r"$\pm$", "≤": r"$\leq$", MISSING: "---", "[": "{[}", "]": "{]}"},
}


def tex(text: str) -> str:
    """`text` with everything escaped that LaTeX would read as a command."""
    return "".join(TEX.get(c, c) for c in " ".join(text.split()))
