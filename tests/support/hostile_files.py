"""A register of hostile files, and pickles that call what they should not."""

import builtins
import functools
import io
import os
import posix
import subprocess
import zipfile

import torch

SIDECAR = '{"prediction": "eps", "shape": [3, 8, 8]}'
HUGE = 10**11 // 4  # float32 numbers in 100 GB


def register():
    """The files of one kind, by name, and the decorator that adds to them."""
    files = {}

    def hostile(name, /, **settings):
        """Register a builder: `build(path, mark)` makes the file or folder `name` at `path`. Code
        in it would create the file `mark` if it ran."""

        def add(build):
            key = f"{build.__name__}-{name}" + "".join(f"-{v}" for v in settings.values())
            files[key] = name, functools.partial(build, **settings)
            return build

        return add

    return files, hostile


class Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def calls(mark):
    touch = f"touch {mark}"
    code = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": Call(os.system, touch),
        "posix.system": Call(posix.system, touch),
        "eval": Call(builtins.eval, code),
        "exec": Call(builtins.exec, code),
        "popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "open": Call(builtins.open, str(mark), "w"),
        "getattr": Call(builtins.getattr, Call(__import__, "os"), "system"),
        "torch": Call(torch.save, 1, str(mark)),
        "load": Call(torch.load, io.BytesIO, False),
        "partial": Call(functools.partial(os.system, touch)),
    }


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
