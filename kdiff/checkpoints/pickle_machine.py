"""A separate interpreter for the few opcodes that a pickle of tensors and settings needs. It never
imports, calls or constructs anything that a file names.

A name in the pickle must be one of `OUTER` (of `STORAGE`, for the tensors inside) and stands for a
function of this module; every other name is refused. Bytes are not read but remembered as spans of
the file, and no length is believed before it has been compared with the file's. Nothing is hashed,
printed or compared that could be nested deeply.
Format: CPython's pickletools.py.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import torch

_MAX_OPCODES = 1_000_000  # the published networks have about 60 thousand
_MAX_TEXT = 1 << 24
_MAX_NAME = 1000
_OPCODES = {op.code: op for op in pickletools.opcodes}
_LENGTHS = {  # opcodes that are followed by a length and as many bytes
    "SHORT_BINBYTES": "<B",
    "BINBYTES": "<I",
    "BINBYTES8": "<Q",
    "SHORT_BINUNICODE": "<B",
    "BINUNICODE": "<I",
    "BINUNICODE8": "<Q",
}


class Span(NamedTuple):
    """Bytes of the file that have not been read."""

    start: int
    size: int

    def read(self, file: BinaryIO) -> bytes:
        file.seek(self.start)
        return file.read(self.size)


class Name(NamedTuple):
    """The name of something that a pickle calls, and nothing more."""

    name: str


@dataclass(eq=False)
class Record:
    """An object of the pickle: the name of its class, its arguments and its state."""

    name: str
    args: tuple = ()
    state: Any = None


@dataclass(eq=False)
class TensorRecord:
    """A tensor that has not been read: a view of the storage in `span`."""

    span: Span
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _persistent(meta: dict[str, Any]) -> Record:
    """An object of NVIDIA's torch_utils.persistence. Its `module_src`, a program, stays unread."""
    if type(meta["class_name"]) is not str:
        raise TypeError
    return Record(meta["class_name"], (), meta["state"])


def _tensor(span, offset, shape, stride, *_) -> TensorRecord:
    return TensorRecord(span, offset, shape, stride)


OUTER: dict[str, Callable[..., Any]] = {
    "builtins.set": lambda items: items,
    "collections.OrderedDict": lambda: {},
    "dnnlib.util.EasyDict": lambda: {},
    "numpy.core.multiarray._reconstruct": lambda *_: Record("numpy.ndarray"),
    "numpy._core.multiarray._reconstruct": lambda *_: Record("numpy.ndarray"),
    "numpy.core.multiarray.scalar": lambda *args: Record("numpy.scalar", args),
    "numpy._core.multiarray.scalar": lambda *args: Record("numpy.scalar", args),
    "numpy.dtype": lambda *args: Record("numpy.dtype", args),
    "numpy.ndarray": lambda *_: Record("numpy.ndarray"),
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.nn.modules.container.ModuleDict": lambda: Record("ModuleDict"),
    "torch.storage._load_from_bytes": lambda span: span,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
}
STORAGE: dict[str, torch.dtype] = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
}


class Machine:
    """The stack machine of a pickle, over `file` up to `end`, for the names in `names`."""

    def __init__(self, file: BinaryIO, end: int, names: Mapping[str, Any]):
        self.file, self.end, self.names = file, end, names

    def run(self) -> Any:
        """The value of the pickle that starts at the position of `file`. ValueError if it is
        damaged, or has an opcode or a name that such a pickle does not need."""
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        for _ in range(_MAX_OPCODES):
            op = self._opcode()
            if op.name == "STOP":
                return self.stack.pop()
            self._step(op)
        raise ValueError(f"more than {_MAX_OPCODES:,} opcodes")

    def _opcode(self) -> pickletools.OpcodeInfo:
        code = self.file.read(1).decode("latin-1")
        if not code or self.file.tell() > self.end:
            raise ValueError("it ends too soon")
        if code not in _OPCODES:
            raise ValueError(f"it is damaged, or no pickle (byte {self.file.tell() - 1:,})")
        return _OPCODES[code]

    def _step(self, op: pickletools.OpcodeInfo) -> None:
        stack, memo = self.stack, self.memo
        match op.name:
            case "PROTO" | "FRAME":
                self._argument(op)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(self._argument(op))
            case "SHORT_BINUNICODE" | "BINUNICODE" | "BINUNICODE8":
                stack.append(self._text(self._span(op.name)))
            case "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8":
                stack.append(self._span(op.name))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self.marks.append(len(stack))
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._take(op.name)))
            case "APPEND" | "APPENDS" | "ADDITEMS":
                self._append(self._take(op.name))
            case "SETITEM" | "SETITEMS":
                self._set(self._take(op.name))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT":
                memo[self._argument(op)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[self._argument(op)])
            case "GLOBAL":
                stack.append(self._name(self._line(), self._line()))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self._name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, name = stack.pop(), stack.pop()
                stack.append(self._made(name, arguments))
            case "BUILD":
                self._build(stack.pop())
            case "BINPERSID" if self.names is STORAGE:
                pass  # the storage's description stays as it is
            case _:
                raise ValueError(f"it has the opcode {op.name}, which no network needs")

    def _argument(self, op: pickletools.OpcodeInfo) -> Any:
        assert op.arg
        return op.arg.reader(self.file)

    def _span(self, op: str) -> Span:
        """The bytes that follow a length; `file` then stands behind them."""
        length = _LENGTHS[op]
        (size,) = struct.unpack(length, self.file.read(struct.calcsize(length)))
        span = Span(self.file.tell(), size)
        if span.start + size > self.end:
            raise ValueError(f"it ends too soon: {size:,} bytes should follow byte {span.start:,}")
        self.file.seek(span.start + size)
        return span

    def _text(self, span: Span) -> str:
        if span.size > _MAX_TEXT:
            raise ValueError(f"it has a text of {span.size:,} bytes")
        return span.read(self.file).decode("utf-8", "surrogatepass")

    def _line(self) -> str:
        line = self.file.readline(_MAX_NAME)
        if not line.endswith(b"\n"):
            raise ValueError("it has a name without an end")
        return line[:-1].decode()

    def _take(self, op: str) -> list[Any]:
        """Pop what the opcode takes: one to three values, a key and its value, or up to a mark."""
        fixed = {"APPEND": 1, "SETITEM": 2, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
        start = len(self.stack) - fixed[op] if op in fixed else self.marks.pop()
        if start < 0:
            raise IndexError
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(values)

    def _set(self, pairs: list[Any]) -> None:
        target, keys = self.stack[-1], pairs[::2]
        # A tuple as a key, nested deeply enough, would overflow the interpreter's own stack.
        if type(target) is not dict or not all(type(key) in (str, int) for key in keys):
            raise TypeError
        target.update(zip(keys, pairs[1::2], strict=True))

    def _name(self, module: Any, name: Any) -> Name:
        if type(module) is not str or type(name) is not str:
            raise TypeError
        full = f"{module}.{name}"
        if full not in self.names:
            raise ValueError(f"it has the name {full[:80]!r}, which no network needs")
        return Name(full)

    def _made(self, name: Any, arguments: Any) -> Any:
        if type(name) is not Name or type(arguments) is not tuple or self.names is not OUTER:
            raise TypeError
        return OUTER[name.name](*arguments)

    def _build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state
        elif state:  # an EasyDict has an empty one
            raise TypeError
