"""Files that are not what their names say, because a clone, a browser or a download left something
else in their place."""

from __future__ import annotations

import os
from pathlib import Path

HEAD = 1024
POINTER = b"version https://git-lfs.github.com/spec/"
ENDINGS = (".part", ".partial", ".crdownload", ".download", ".incomplete", ".aria2", ".opdownload")


def check_file(path: str | os.PathLike[str]) -> None:
    """ValueError, which says what to do, if the file at `path` is a Git LFS pointer, a web page
    that was saved in its place, or empty. A path that is not a file, or cannot be read, passes."""
    try:
        if Path(path).is_file():
            with open(path, "rb") as file:
                check_head(path, file.read(HEAD))
    except OSError:
        return


def check_head(where: object, head: bytes) -> None:
    """The same by the first `HEAD` bytes of a file; `where` begins the message."""
    reason = _replaced(head)
    if reason:
        raise ValueError(f"{where} is {reason}")


def unfinished(path: Path) -> str | None:
    """One clause, if the name says that a download has not ended; else None."""
    if path.suffix.lower() in ENDINGS:
        return f"an unfinished download, by its name ({path.suffix}): download it to the end"
    return None


def _replaced(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not head:
        return "an empty file: download or write it again"
    if text.startswith(POINTER):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` in its folder"
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return (
            "a web page (HTML) that was saved in place of the file: download the file itself (on "
            "Hugging Face, its address has /resolve/, not /blob/)"
        )
    if text.startswith(b"<?xml") and b"<error>" in text:
        return "a server's error message (XML) in place of the file: download it again"
    return None
