"""--guide with a classifier, a loss or layers: what cannot be is refused, and leaves nothing."""

import sys

import pytest
from click.testing import CliRunner

from kdiff.cli import main

ODD = """
def fails(x0):
    raise KeyError("two\\nlines")

def ends(x0):
    raise SystemExit(0)

def whole(x0):
    return x0
"""


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        ("classifier", "cifar10-noisy is for images of 3 x 32 x 32, not 1 x 28 x 28 as of mnist"),
        ("classifier:classifier=cifar-noisy", "no noisy-image classifier 'cifar-noisy'"),
        ("classifier:classifier=mnist", "neither a file nor one that comes with kdiff"),
        ("classifier:classifier=nowhere:f", "there is no noisy-image classifier 'nowhere:f'"),
        ("classifier:scale=much", "scale must be a number from -1000 to 1000, not 'much'"),
        ("loss", "function must be module:name or a function, from the denoised [N, ..] to"),
        ("loss:function=nowhere:f", "there is no loss function 'nowhere:f'"),
        # What only the run can tell:
        ("loss:function=odd:fails", "the loss function fails: KeyError: "),
        ("loss:function=odd:ends", "the loss function fails: SystemExit: 0"),
        ("loss:function=odd:whole", "one loss a sample, [16], not [16, 1, 28, 28]"),
        ("classifier:classifier=odd:fails", "classifier odd:fails: it fails: TypeError: fails()"),
        ("slg:layers=*", "the layer * cannot be skipped: it makes (16, 16) of (16,)"),
        ("pag:layers=map_noise", "no self-attention of PyTorch's is in the layer map_noise"),
    ],
)
def test_guides_that_cannot_be_are_refused_in_one_line(guide, message, tmp_path, monkeypatch):
    (tmp_path / "odd.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("odd", None)
    out = tmp_path / "new" / "out"
    arguments = ["sample", "--model", "mnist", "--guide", guide, "--steps", "2", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and message in result.output
    error = result.output[result.output.index("Error:") :].strip()
    assert "\n" not in error and "Traceback" not in result.output and not out.parent.exists()


def test_a_negative_class_has_no_effect_where_a_classifier_leaves_the_class_out(tmp_path):
    guided = ["--guide", "classifier:conditional=false", "--negative-label", "dog"]
    result = CliRunner().invoke(main, ["sample", *guided, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and not (tmp_path / "out").exists()
    assert "a negative class is for guidance that leads away from it" in result.output
