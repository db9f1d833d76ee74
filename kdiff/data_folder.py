"""The folder in which kdiff keeps what it makes or downloads on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from kdiff.files import user_path


def data_folder() -> Path:
    """$KDIFF_HOME, or else the user's data folder for kdiff. It need not exist yet.
    ValueError if the user has no home folder."""
    try:
        return user_path(os.environ.get("KDIFF_HOME") or platformdirs.user_data_dir("kdiff", False))
    except RuntimeError as error:
        raise ValueError("this user has no home folder; set HOME or KDIFF_HOME") from error
