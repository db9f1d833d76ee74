"""Whatever goes wrong, a person gets one line and a status that is not 0, and no traceback."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import kdiff
from kdiff.cli import main
from kdiff.eval.statistics.all_rows import AllRows

TINY = ("--model", "mnist", "--steps", "1", "--num", "2")
REPORTED = "KDIFF_TRACEBACK=1 shows the traceback"


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def shell(text, folder, **environment):
    """A command of the shell, in which $kdiff is kdiff."""
    own = {**os.environ, "OMP_NUM_THREADS": "1", "kdiff": f"{sys.executable} -m kdiff"}
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env={**own, **environment}, capture_output=True, text=True
    )


def one_error(result):
    assert "Traceback" not in result.stderr and "ignored" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert line == result.stderr.splitlines()[-1]
    return line


# --- standard streams ---


def test_a_full_standard_output_is_one_line(tmp_path):
    for words in ("list", "--help", "list samplers --json"):
        result = shell(f"$kdiff {words} > /dev/full", tmp_path)
        assert result.returncode == 1
        assert one_error(result) == "Error: cannot print: No space left on device"


def test_what_cannot_be_printed_is_in_the_file(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8))
    (tmp_path / "own.py").write_text("def mean(images): return images.mean((1, 2))\n")
    words = "--images x.npy --ref x.npy --features own:mean --metrics kid --out record.json"
    result = shell(f"$kdiff eval-fid {words} > /dev/full", tmp_path)
    assert one_error(result) == "Error: cannot print: No space left on device"
    assert "KID" in next(iter(json.loads((tmp_path / "record.json").read_text())["metrics"]))


def test_a_reader_that_leaves_is_no_error(tmp_path):
    result = shell("$kdiff explain euler --steps 900 --json | head -1 | wc -l", tmp_path)
    assert (result.stdout.strip(), result.stderr) == ("1", "")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(tmp_path, closed):
    words = " ".join(TINY)
    result = shell(f"$kdiff sample {words} --out out {closed}", tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert shell(f"$kdiff sample --model nothing {closed}", tmp_path).returncode == 2


def test_a_name_that_is_not_text_is_no_error(tmp_path):
    result = shell("$kdiff sample " + " ".join(TINY) + " --out $'\\xff'", tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / os.fsdecode(b"\xff") / "run.json").exists()
    latin = {"PYTHONIOENCODING": "ascii"}
    assert shell("$kdiff list samplers", tmp_path, **latin).returncode == 0


# --- Ctrl-C ---

TORCH = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"


def test_ctrl_c_while_torch_is_imported_is_quiet(tmp_path):
    (tmp_path / "torch.py").write_text(TORCH)
    for words in ("sample --help", "list formats"):
        result = shell(f"$kdiff {words}", tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (130, "", ""), words


def test_ctrl_c_in_a_program_of_somebody_s_own_is_its_own(tmp_path):
    (tmp_path / "torch.py").write_text(TORCH)
    code = "import kdiff\ntry: kdiff.sample\nexcept KeyboardInterrupt: print('mine')"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout == "mine\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_anywhere_else_is_one_word(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("kdiff.cli.convert_command.load_with", interrupted)
    result = call("convert", "mnist", "never.safetensors")
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


# --- the disk ---

LIMITED = f"""
import resource, sys
import torch._dynamo  # which wants to write a temporary file
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), {resource.RLIM_INFINITY}))
sys.argv[1:2] = []
from kdiff.cli import main
main()
"""
FULL = {
    "convert": (1000, "convert mnist c.safetensors"),
    "ref make": (0, "ref make r --images pictures --features feat:f --out r.safetensors"),
    "ref show": (500, "ref show ref.npz --features feat:f --npz r.npz"),
    "sample": (0, "sample --model mnist --steps 1 --num 2 --out made"),
    "film": (1000, "sample --model mnist --steps 9 --num 2 --out film --trajectory f.gif"),
    "sweep": (0, "sweep --model mnist --steps 1 --num 4 --metrics none --out new"),
    "portion": (2000, "sweep --model mnist --steps 1 --num 4 --metrics none --out new"),
    "line": (4000, "sweep --model mnist --steps 2 --num 4 --metrics none --out swept"),
    "report": (1000, "report swept --format csv,svg,html"),
    "eval-fid": (0, "eval-fid --images pictures --ref ref.npz --features feat:f --out e.json"),
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    (folder / "feat.py").write_text(
        "import numpy as np\nf = lambda x: x.reshape(len(x), -1)[:, :9].astype('f4')\n"
    )
    made = [
        "$kdiff sample --model mnist --steps 1 --num 12 --out pictures; rm pictures/grid.png",
        "$kdiff sweep --model mnist --steps 1 --num 4 --metrics none --out swept",
        f"{sys.executable} -c 'import numpy as n; n.savez(\"ref\", mu=n.zeros(9), sigma=n.eye(9))'",
    ]
    result = shell(" && ".join(made), folder)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("case", FULL)
def test_a_full_disk_is_one_line_and_leaves_no_half_a_file(workplace, case):
    limit, words = FULL[case]
    before = {path: path.stat().st_size for path in workplace.rglob("*") if path.is_file()}
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words.split()],
        cwd=workplace,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode in (1, 2)
    assert "File too large" in one_error(result) or "disk full" in one_error(result)
    after = {path for path in workplace.rglob("*") if path.is_file()} - before.keys()
    assert not [path for path in after if path.name.startswith(".")]
    named = ("c.safetensors", "r.safetensors", "r.npz", "f.gif", "e.json")
    assert not [path for path in after if path.name in named]


def test_a_map_on_a_full_disk_is_an_oserror(monkeypatch):
    monkeypatch.setattr("kdiff.eval.statistics.all_rows.LIMIT", 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            AllRows(1000, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert AllRows(10, 10).filled.sum() == 0


def test_a_packaged_reference_needs_no_folder_of_the_user(monkeypatch):
    def unreadable():
        raise PermissionError(13, "Permission denied", "/nowhere")

    monkeypatch.setattr("kdiff.eval.references.stored.data_folder", unreadable)
    words = ("ref", "show", "cifar10", "--features", "cifar10-classifier")
    assert call(*words).exit_code == 0
    with pytest.warns(UserWarning, match="your own references are passed over"):
        assert call("ref", "list").exit_code == 0
    result = call("ref", "make", "mine", "--images", ".", "--features", "cifar10-classifier")
    assert one_error(result) == "Error: /nowhere: Permission denied"


def test_without_a_home_folder(monkeypatch):
    monkeypatch.setenv("KDIFF_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", "~/x")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    words = ("ref", "show", "cifar10", "--features", "cifar10-classifier")
    assert call(*words).exit_code == 0
    result = call("ref", "make", "mine", "--images", ".", "--features", "cifar10-classifier")
    assert "this user has no home folder; set HOME" in one_error(result)
    assert not Path("~").exists()


# --- what nobody foresaw ---


@pytest.mark.parametrize("error", [KeyError("a\nb"), RecursionError("deep"), AttributeError("x")])
def test_the_unforeseen_is_one_line_that_says_what_and_where(monkeypatch, error):
    def fails(*_):
        raise error

    monkeypatch.setattr("kdiff.cli.convert_command.load_with", fails)
    result = call("convert", "mnist", "never.safetensors")
    line = one_error(result)
    assert result.exit_code == 1 and REPORTED in line
    assert type(error).__name__ in line and "at test_errors.py:" in line


def test_no_memory_is_said(monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr("kdiff.cli.convert_command.load_with", fails)
    assert "not enough memory" in one_error(call("convert", "mnist", "never.safetensors"))


def test_a_traceback_can_be_had(monkeypatch):
    monkeypatch.setenv("KDIFF_TRACEBACK", "1")
    refused = call("sample", "--model", "nothing.pt")
    assert refused.exit_code == 2 and "in find_model" in refused.stderr

    def fails(*_):
        raise KeyError("a")

    monkeypatch.setattr("kdiff.cli.convert_command.load_with", fails)
    result = CliRunner().invoke(main, ["convert", "mnist", "never.safetensors"])
    assert isinstance(result.exception, KeyError)


def test_a_network_that_fails_in_any_way_is_one_line(monkeypatch, tmp_path):
    def fails(*_, **__):
        return {}["key"]

    monkeypatch.setattr(kdiff.Denoiser, "__call__", fails)
    line = one_error(call("sample", *TINY, "--out", tmp_path / "out"))
    assert line.startswith("Error: mnist: KeyError: 'key', at test_errors.py:")


ABSURD = {
    "sample --num": ("sample", *TINY[:4], "--num", 10**14),
    "eval-fid --num": ("eval-fid", "--model", "mnist", "--num", 10**14),
    "sweep --num": ("sweep", "--model", "mnist", "--num", 10**14, "--metrics", "none"),
    "sweep --first-seed": ("sweep", "--first-seed", 10**30, "--metrics", "none"),
    "inspect": ("inspect", "/dev/zero"),
    "folder for a file": ("sweep", "--file", "/tmp"),
    "file for a folder": ("report", __file__),
    "folder for images": ("eval-fid", "--images", "/dev/null"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_requests_are_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*ABSURD[case])
    assert result.exit_code == 2 and one_error(result)
    assert not list(tmp_path.iterdir())


def test_a_huge_batch_is_all_of_them(tmp_path):
    result = call("sample", *TINY, "--batch", 10**18, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
