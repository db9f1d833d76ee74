"""Paths as people write them, text as people save it, and files on disks that are full."""

import json
import os
import resource
import subprocess
import sys

import pytest

from kdiff.files import (
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
    user_path,
    whole_file,
    write_json,
)


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~") == tmp_path
    assert user_path("~/a b/~") == tmp_path / "a b" / "~"
    monkeypatch.chdir(tmp_path)
    assert user_path("./~") == user_path(user_path("./~")) == tmp_path / "~"
    assert str(user_path("a/~")) == "a/~"
    assert user_path("~nobody-of-that-name/x") == tmp_path / "~nobody-of-that-name" / "x"


def test_a_name_from_a_utf8_file_is_the_same_where_the_locale_is_not(tmp_path):
    """It may name what is there already."""
    (tmp_path / "süß").write_text("found")
    code = "from kdiff.files import user_path; print(user_path('s\\xfc\\xdf').read_text())"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, **ascii_only}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout == "found\n", found.stderr


NOT_PATHS = {"": "is empty", "a\0b": "cannot hold a NUL", "ä" * 128: "too long"}


@pytest.mark.parametrize(("path", "said"), NOT_PATHS.items())
def test_what_is_no_path_is_refused(path, said):
    with pytest.raises(ValueError, match=said):
        user_path(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_is_utf8_whatever_the_locale(tmp_path, mark):
    file = tmp_path / "a.txt"
    file.write_bytes(mark + "naïve: ä\n".encode())
    code = f"from kdiff.files import read_text; print(ascii(read_text({str(file)!r})))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ascii("naïve: ä\n")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_in_another_encoding_is_one_line(tmp_path, encoding):
    file = tmp_path / "a.txt"
    file.write_bytes("naïve".encode(encoding))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text: save it as UTF-8$"):
        read_text(file)


def test_a_file_without_end_is_refused():
    with pytest.raises(ValueError, match="/dev/zero is too large"):
        read_text("/dev/zero", 1000)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, " ", "nonsense", "9" * 5000])
def test_what_is_not_json_is_one_line(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json is not JSON") as caught:
        read_json(tmp_path / "a.json")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1e999}', "-1e999"])
def test_numbers_are_finite_where_they_must_be(text):
    parse_json(text, "it")
    with pytest.raises(ValueError, match=r"it is not JSON: .* is not a finite number"):
        parse_json(text, "it", finite=True)


LAUGHS = "a: &a0 [x, x]\n" + "".join(
    f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "a: &a0 {k: 1}\n" + "".join(
    f"b{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 10)
)
NOT_YAML = {
    **{f"nested {text!r}": text * 100_000 for text in ("[", "{a: ", "- ", "? ")},
    **{"aliases nine deep": LAUGHS, "merges nine deep": MERGES},
    **{"of itself": "&a [*a]", "its own value": "&a {b: *a}", "undefined alias": "*a"},
    **{kind: "1" + 100_000 * ":1" + end for kind, end in (("base 60", ""), ("with a point", ".5"))},
    **{"no such day": "2024-99-99", "huge number": "9" * 5000, "hexadecimal": "0x_"},
    **{tag: f"!!{tag} foo" for tag in ("int", "float", "bool", "timestamp", "set", "omap")},
    **{"object": "!!python/object/apply:os.getcwd []", "two documents": "a\n---\nb"},
    **{"list as key": "? [a]\n: b", "control character": "\x01", "surrogate": "\ud800"},
}


@pytest.mark.parametrize("case", NOT_YAML)
def test_what_is_not_yaml_is_one_line(case):
    with pytest.raises(ValueError, match=r"^it is not YAML") as caught:
        parse_yaml(NOT_YAML[case], "it")
    assert len(str(caught.value).splitlines()) == 1


def test_yaml_may_have_aliases(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &some [5, 10]\nb: *some\nc: {<<: {d: 1}}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [5, 10], "b": [5, 10], "c": {"d": 1}}


# A limit on the size of files, which is met as the end of a disk is: some bytes are written, then
# an error follows. Python ignores the signal.
FULL = f"""
import resource, sys
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from kdiff.files import whole_file, write_json
import kdiff.images
limit = lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, {resource.RLIM_INFINITY}))
noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
writers = {{
    "a.json": lambda path: path.write_text("x" * 100000),
    "a.safetensors": lambda path: save_file({{"x": noise}}, path),
    "a.npz": lambda path: np.savez(path, x=noise),
    "a.png": lambda path: kdiff.images.save_image(noise, path),
    "a.gif": lambda path: kdiff.images.save_animation([noise, noise], path),
}}
for name, write in writers.items():
    limit(5000)
    try:
        with whole_file(name) as temporary:
            write(temporary)
    except OSError as error:
        limit({resource.RLIM_INFINITY})
        print(name, error.filename, error.strerror)
"""


def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [name for name, *_ in told] == ["a.json", "a.safetensors", "a.npz", "a.png", "a.gif"]
    assert all(name == named for name, named, _ in told)
    assert not list(tmp_path.iterdir()) and not done.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "no" / "a.json"):
        pass
    assert caught.value.filename == str(tmp_path / "no" / "a.json")


def test_a_file_does_not_take_the_place_of_a_pipe_or_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file that can be replaced"):
        write_json(tmp_path / "pipe", 1)
    assert (tmp_path / "pipe").is_fifo()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": [1, "inf"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
