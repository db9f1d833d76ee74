"""A classifier by name, from a file, or a function of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdiff.classifiers import guided_diffusion, native
from kdiff.classifiers.classifier import Classifier, FunctionClassifier, NoisyClassifier
from kdiff.downloads import check_file
from kdiff.files import user_path
from kdiff.functions import named
from kdiff.models import ASSETS

KIND = "noisy-image classifier"


def packaged_classifiers() -> dict[str, Path]:
    """The classifiers that come with the package: name -> file."""
    return {path.stem: path for path in sorted((ASSETS / "classifiers").glob("*.safetensors"))}


def load_classifier(what: Any, /) -> NoisyClassifier:
    """`what` is the name of a packaged classifier (`cifar10-noisy`), a file of
    `tools/train_classifier.py --noisy` or of OpenAI's guided-diffusion, a `module:function`, which
    is imported, or any function of (x, sigma) that answers with logits `[N, classes]`. A
    `NoisyClassifier` is returned as it is. Packaged ones and files are on the CPU.

    ValueError if there is no such classifier, or the file is of no such format.
    """
    if isinstance(what, NoisyClassifier):
        return what
    if not isinstance(what, str | Path):
        if not callable(what):
            raise ValueError(f"a {KIND} is a name, a file or a function, not {what!r:.80}")
        return FunctionClassifier(what, getattr(what, "__qualname__", type(what).__qualname__))
    packaged, path = packaged_classifiers(), user_path(what)
    if isinstance(what, str) and what in packaged:
        path = packaged[what]
    if path.is_file():
        return _read(path)
    if isinstance(what, str) and ":" in what:
        found = named(KIND, what)
        return found if isinstance(found, NoisyClassifier) else FunctionClassifier(found, what)
    raise ValueError(
        f"no {KIND} {str(what)!r:.80}: neither a file nor one that comes with kdiff "
        f"({', '.join(packaged) or 'none'}), nor module:function"
    )


def _read(path: Path) -> Classifier:
    check_file(path)
    if native.detect(path) is None:
        return native.load(path)
    missing = guided_diffusion.detect(path)
    if missing is None:
        return guided_diffusion.load(path)
    raise ValueError(
        f"{path} is neither a {KIND} of tools/train_classifier.py nor one of guided-diffusion: "
        f"{missing}"
    )
