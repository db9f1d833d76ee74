"""What `--ref` names: a stored reference, a file of anybody's, or images."""

from __future__ import annotations

import difflib
import os
import warnings
from dataclasses import replace
from pathlib import Path

from kdiff.downloads import check_file
from kdiff.eval.images.pictures import Pictures, open_pictures
from kdiff.eval.references.file import load_reference
from kdiff.eval.references.foreign import clean_fid_file, images_beside, read_npz
from kdiff.eval.references.reference import Reference
from kdiff.eval.references.stored import find_stored, stored_names
from kdiff.files import user_path

CLEAN_FID, CIFAR10 = "clean-fid:", "cifar10:"


def find_reference(
    text: str, features: str, resize: str | None, data: str | Path | None = None
) -> Reference | Pictures:
    """What `--ref` names, for the network `features` in mode `resize`: a name in `kdiff ref list`;
    a file of ours; an `.npz` with `mu, sigma`; `clean-fid:cifar10-train-32`, downloaded if need be;
    or images (see `open_pictures`), which are returned as such, for `make_reference`.

    ValueError if there is nothing of that name (the nearest is suggested), if it is there for
    another network or mode only, or if the file cannot be read. No pickle is ever opened.
    """
    stored = find_stored(text, features, resize)
    if stored is not None:
        if os.path.lexists(text):
            told = f"{text} is a reference's name: for the file or folder say ./{text}"
            warnings.warn(told, stacklevel=2)
        return stored
    if text.startswith(CLEAN_FID):
        return _clean_fid(text, features, resize)
    path = user_path(text)
    if not path.exists() and not text.startswith(CIFAR10) and ".npz:" not in text:
        raise ValueError(_unknown(text))
    check_file(path)
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise ValueError(
            f"{text} is a pickle, which kdiff never opens: it can run any code; if you trust it: "
            "s = pickle.load(open(FILE, 'rb')); s = s.get('fid', s); "
            "np.savez('stats.npz', mu=s['mu'], sigma=s['sigma'])"
        )
    if path.suffix.lower() == ".safetensors":
        return load_reference(path)
    statistics = read_npz(path) if path.suffix.lower() == ".npz" and path.is_file() else None
    if statistics is None:
        pictures = open_pictures(text, data)
        return replace(pictures, name=text) if pictures.name in stored_names() else pictures
    return Reference(
        name=path.name, source=text, images=images_beside(path), **statistics._asdict()
    )


def _unknown(text: str) -> str:
    nearest = difflib.get_close_matches(text.lower(), stored_names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see `kdiff ref list`"
    return f"no reference {text!r}: neither a name nor a file or folder; {hint}"


def _clean_fid(text: str, features: str, resize: str | None) -> Reference:
    if features != "inception":
        raise ValueError(f"{text} is for inception, not for {features}")
    path = clean_fid_file(text.removeprefix(CLEAN_FID), resize)
    statistics = read_npz(path)
    if statistics is None:
        raise ValueError(f"{path} has no mu and sigma")
    return Reference(
        name=text, features=features, resize=resize, source=str(path), **statistics._asdict()
    )
