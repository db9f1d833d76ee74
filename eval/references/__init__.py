"""Reference statistics: mean and covariance of a data set's features, and what made them."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdiff.data_folder import home
from kdiff.downloads import check_file
from kdiff.eval.features import FeatureNetwork
from kdiff.eval.images.pictures import Pictures, open_pictures
from kdiff.eval.metrics.frechet import Gaussian
from kdiff.eval.references.foreign import as_gaussian, clean_fid_file, images_beside, read_npz
from kdiff.eval.statistics.all_rows import Kept
from kdiff.eval.statistics.moments import Moments
from kdiff.files import parse_json, user_path, whole_file
from kdiff.models import ASSETS

FORMAT = "kdiff-reference/1"
NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"
PACKAGED = ASSETS / "references"
CLEAN_FID, CIFAR10 = "clean-fid:", "cifar10:"


@dataclass(frozen=True, eq=False, kw_only=True)
class Label:
    """What statistics are of: `n` images of `source`, seen by the network `features` with this
    `resize` mode (None: the network has none) and `weights` (SHA-256). None: not known."""

    name: str
    n: int | None = None
    features: str | None = None
    resize: str | None = None
    weights: str | None = None
    source: str = ""
    created: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Reference(Label):
    """Statistics of features and, if there are any, of the spatial features that sFID takes; `kept`
    are all features, which no file holds; `images()` are those in the same file; `notes` belong
    beside figures."""

    gaussian: Gaussian
    spatial: Gaussian | None = None
    kept: Kept | None = None
    images: Callable[[], Pictures] | None = None
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """`[d]`, float64."""
        return self.gaussian.mean

    @property
    def cov(self) -> np.ndarray:
        """`[d, d]`, float64."""
        return self.gaussian.cov

    @property
    def spatial_gaussian(self) -> Gaussian:
        """ValueError if there is none."""
        if self.spatial is None:
            raise ValueError(
                f"reference {self.name} has no spatial statistics, which sFID needs: make one with "
                "`kdiff ref make --spatial`"
            )
        return self.spatial

    @property
    def rows(self) -> np.ndarray:
        """All features `[n, d]`. ValueError if they were not kept."""
        if self.kept is None:
            raise ValueError(
                f"reference {self.name} has a mean and a covariance only; KID, precision, recall, "
                "density and coverage need its images: give them as --ref"
            )
        return self.kept.rows

    @property
    def label(self) -> Label:
        return Label(**{field.name: getattr(self, field.name) for field in fields(Label)})

    @cached_property
    def sha256(self) -> str:
        """Of the statistics as our files hold them: the same before saving and after."""
        digest = hashlib.sha256()
        for array in _tensors(self).values():
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()

    def record(self) -> dict[str, str | int | None]:
        """What names it in results."""
        return {"name": self.name, "n": self.n, "sha256": self.sha256}


# Our file: safetensors with float32 means, the covariances' upper triangles row by row (which moves
# FID by 2e-9), and the label as JSON. 8.4 MB for 2048 dimensions.


def save_reference(reference: Reference, path: str | Path) -> None:
    """Write it, whole or not at all. The folder must exist."""
    metadata = {"format": FORMAT, "label": json.dumps(asdict(reference.label))}
    with whole_file(user_path(path)) as temporary:
        save_file(_tensors(reference), temporary, metadata)


def load_reference(path: str | Path) -> Reference:
    """ValueError if it is not a whole kdiff reference."""
    label, tensors = _read(user_path(path), tensors=True)
    try:
        spatial = _unpack(path, tensors, "spatial_", label.n) if "spatial_mean" in tensors else None
        gaussian = _unpack(path, tensors, "", label.n)
    except KeyError as error:
        raise ValueError(f"{path} has no {error}: it is not a whole {FORMAT} file") from error
    return Reference(**asdict(label), gaussian=gaussian, spatial=spatial)


def load_label(path: str | Path) -> Label:
    """Only what is on the label, quickly. ValueError if it is not a kdiff reference."""
    return _read(user_path(path), tensors=False)[0]


def _read(path: Path, tensors: bool) -> tuple[Label, dict[str, np.ndarray]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            keys = file.keys() if tensors else []
            arrays = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is a safetensors file, but not a {FORMAT} one")
    try:
        label = Label(**parse_json(metadata["label"], "it"))
        if not all(type(v) is (int if k == "n" else str) for k, v in _known(label).items()):
            raise TypeError("its values are of the wrong types")
        if label.n is not None and not 0 < label.n < 2**53:
            raise ValueError("its number of images is none")
        return label, arrays
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has a label that kdiff cannot read: {error}") from error


def _known(label: Label) -> dict[str, object]:
    return {key: value for key, value in asdict(label).items() if value is not None}


def _tensors(reference: Reference) -> dict[str, np.ndarray]:
    gaussians = {"": reference.gaussian, "spatial_": reference.spatial}
    tensors = {}
    for prefix, gaussian in gaussians.items():
        if gaussian is not None:
            tensors[f"{prefix}mean"] = gaussian.mean.astype(np.float32)
            triangle = gaussian.cov[np.triu_indices(len(gaussian.mean))]
            tensors[f"{prefix}cov"] = triangle.astype(np.float32)
    return tensors


def _unpack(
    path: str | Path, tensors: dict[str, np.ndarray], prefix: str, n: int | None
) -> Gaussian:
    mean, triangle = tensors[f"{prefix}mean"], tensors[f"{prefix}cov"]
    d = mean.size
    if triangle.shape != (d * (d + 1) // 2,):
        raise ValueError(f"{path}: its {d} means and {triangle.size} covariances do not fit")
    cov = np.zeros((d, d))
    cov[np.triu_indices(d)] = triangle
    return as_gaussian(path, mean, cov + np.triu(cov, 1).T, n)


# Those that have a name


def stored_references() -> dict[Path, Label]:
    """Those that come with the package, then the user's own, which are in `home()`; a damaged file
    among these is passed over, with a warning."""
    stored = _packaged()
    try:
        own = sorted(own_folder().glob("*.safetensors"))
    except (OSError, ValueError) as error:
        warnings.warn(f"your own references are passed over: {error}", stacklevel=2)
        return stored
    for path in own:
        try:
            stored[path] = load_label(path)
        except ValueError as error:
            warnings.warn(f"passed over: {error}", stacklevel=2)
    return stored


def _packaged() -> dict[Path, Label]:
    return {path: load_label(path) for path in sorted(PACKAGED.glob("*.safetensors"))}


def own_folder() -> Path:
    return home() / "references"


def own_path(name: str, features: str, resize: str | None) -> Path:
    """Where the user's reference of that name goes. ValueError if it is not a name, or if such a
    reference comes with the package."""
    if not re.fullmatch(NAME, name):
        raise ValueError(f"a name has letters, digits, '.', '_' and '-' only, not {name!r}")
    file = "-".join(filter(None, (name, re.sub(r"[^\w.-]", "_", features), resize)))
    if (PACKAGED / f"{file}.safetensors").exists():
        raise ValueError(
            f"{name} for {_how(features, resize)} comes with kdiff: choose another name"
        )
    return own_folder() / f"{file}.safetensors"


def _find_stored(name: str, features: str, resize: str | None) -> Reference | None:
    for stored in (_packaged, stored_references):  # the user's folder only if it is needed
        named = {path: label for path, label in stored().items() if label.name == name}
        for path, label in named.items():
            if (label.features, label.resize) == (features, resize):
                return load_reference(path)
    if named:
        there = ", ".join(_how(label.features, label.resize) for label in named.values())
        raise ValueError(
            f"reference {name} is there for {there}, not for {_how(features, resize)}: choose one "
            "of those, or make it with `kdiff ref make`"
        )
    return None


def _how(features: str | None, resize: str | None) -> str:
    return f"{features} ({resize})" if resize else str(features)


def find_reference(
    text: str, features: str, resize: str | None, data: str | Path | None = None
) -> Reference | Pictures:
    """What `--ref` names, for the network `features` in mode `resize`: a name in `kdiff ref list`;
    a file of ours; an `.npz` with `mu, sigma`; `clean-fid:cifar10-train-32`, downloaded if need be;
    or images (see `open_pictures`), which are returned as such, for `make_reference`.

    ValueError if there is nothing of that name (the nearest is suggested), if it is there for
    another network or mode only, or if the file cannot be read. No pickle is ever opened.
    """
    stored = _find_stored(text, features, resize)
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
        return replace(pictures, name=text) if pictures.name in _names() else pictures
    return Reference(
        name=path.name, source=text, images=images_beside(path), **statistics._asdict()
    )


def _unknown(text: str) -> str:
    nearest = difflib.get_close_matches(text.lower(), _names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see `kdiff ref list`"
    return f"no reference {text!r}: neither a name nor a file or folder; {hint}"


def _names() -> list[str]:
    return list(dict.fromkeys(label.name for label in stored_references().values()))


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


# Making and comparing


def make_reference(
    name: str,
    pictures: Pictures,
    network: FeatureNetwork,
    batch: int = 64,
    progress: Callable[[int], object] | None = None,
    spatial: bool = False,
    rows: bool = False,
) -> Reference:
    """Statistics of all `pictures`, in constant memory unless all `rows` are kept;
    `progress` is told how many images each batch had. ValueError if `spatial` statistics are asked
    of a network that has none."""
    sums: list[Moments] = []
    kept: Kept | None = None
    done = 0
    for images in pictures.batches(batch):
        features = network(images)
        streams = [features.pool]
        if spatial:
            if features.spatial is None:
                raise ValueError(f"{network.name} has no spatial features")
            streams.append(features.spatial)
        sums = sums or [Moments(stream.shape[1]) for stream in streams]
        for moments, stream in zip(sums, streams, strict=True):
            moments.update(stream)
        if rows:
            kept = kept or Kept(len(pictures), features.pool.shape[1])
            kept.update(features.pool, range(done, done + len(images)))
        done += len(images)
        if progress is not None:
            progress(len(images))
    gaussians = [Gaussian(moments.mean, moments.cov, moments.n) for moments in sums]
    return Reference(
        name=name,
        n=len(pictures),
        features=network.name,
        resize=network.resize,
        weights=network.weights,
        source=pictures.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        gaussian=gaussians[0],
        spatial=gaussians[1] if spatial else None,
        kept=kept,
        notes=tuple(f"reference {name}: {note}" for note in pictures.notes),
    )


def check_comparable(reference: Label, network: FeatureNetwork) -> list[str]:
    """Warnings: the reference's own notes, and what it does not record, and so is assumed.
    ValueError, in one line, if it was made with another network, resize mode or weights."""
    notes = list(getattr(reference, "notes", ()))
    pairs = {
        "feature network": (reference.features, network.name),
        "resize mode": (reference.resize, network.resize),
        "weights": (reference.weights, network.weights),
    }
    for what, (theirs, ours) in pairs.items():
        if theirs is not None and theirs != ours:
            raise ValueError(
                f"reference {reference.name} was made with {what} {theirs[:20]}, this is "
                f"{str(ours)[:20]}: their figures cannot be compared"
            )
    missing = [what for what, (theirs, ours) in pairs.items() if theirs != ours]
    missing += ["number of images"] * (reference.n is None)
    if missing:
        assumed = _how(network.name, network.resize)
        notes.append(
            f"{reference.name} does not record its {', '.join(missing)}: taken as {assumed}"
        )
    return notes
