"""Reports of sweeps: tables, curves, and one HTML page.

`read_sweep(folder)` reads what `kdiff sweep` wrote, `make_tables(sweep)` lays it out by NFE or, as
`across` says, by an option, `plots` says what is drawn of it, and `formats`, `curves` and `page`
write it down.
"""

from kdiff.eval.report.cells import Failure, Figure, Result, Sweep, read_sweep
from kdiff.eval.report.tables import Row, Table, has_lines, make_tables, within

__all__ = [
    "Failure",
    "Figure",
    "Result",
    "Row",
    "Sweep",
    "Table",
    "has_lines",
    "make_tables",
    "read_sweep",
    "within",
]
