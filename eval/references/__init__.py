"""References: finished statistics of a data set's features, their files, their names."""

from kdiff.eval.references.comparing import check_comparable
from kdiff.eval.references.file import FORMAT, load_label, load_reference, save_reference
from kdiff.eval.references.finding import find_reference
from kdiff.eval.references.making import make_reference
from kdiff.eval.references.reference import Label, Reference
from kdiff.eval.references.stored import own_path, stored_references

__all__ = [
    "FORMAT",
    "Label",
    "Reference",
    "check_comparable",
    "find_reference",
    "load_label",
    "load_reference",
    "make_reference",
    "own_path",
    "save_reference",
    "stored_references",
]
