"""--guide with a classifier or a loss: what cannot be is refused before anything is written."""

import pytest
from click.testing import CliRunner

from kdiff.cli import main


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
    ],
)
def test_guides_that_cannot_be_are_refused_in_one_line(guide, message, tmp_path):
    out = tmp_path / "out"
    arguments = ["sample", "--model", "mnist", "--guide", guide, "--steps", "2", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and message in result.output
    error = result.output[result.output.index("Error:") :].strip()
    assert "\n" not in error and "Traceback" not in result.output and not out.exists()
