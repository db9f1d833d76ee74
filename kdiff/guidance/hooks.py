"""Networks changed for one call: layers left out, or attention computed in another way.

Everything is done by hooks that are taken away afterwards, also after an error, and that only the
calls of the same thread notice. In the meantime compiled modules run as they were written.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kdiff.guidance.layers import Layers
from kdiff.messages import Unusable

# Blocks of diffusers in which text and image attend to each other: whether the text's tokens stand
# first in the joint attention. All of them answer with (encoder_hidden_states, hidden_states).
JOINT = {
    "JointTransformerBlock": False,
    "FluxTransformerBlock": True,
    "FluxSingleTransformerBlock": True,
}
TEXT, IMAGE = "encoder_hidden_states", "hidden_states"


@contextmanager
def skipped(layers: Layers) -> Iterator[None]:
    """Within it, these layers answer with their first input; the joint blocks of SD3 and Flux, with
    text and image as they came. (What they compute is thrown away: a skipped layer costs as much as
    any other.)

    Unusable if an answer has another shape than the input, or a layer was not called.
    """
    thread, called = get_ident(), set[str]()

    def pass_on(name: str, module: nn.Module, args: Any, given: Any, answer: Any) -> Any:
        if get_ident() != thread:
            return answer
        called.add(name)
        return _input(name, module, args, given, answer)

    with ExitStack() as hooks:
        for name, modules in layers.items():
            for module in modules:
                hook = module.register_forward_hook(partial(pass_on, name), with_kwargs=True)
                hooks.callback(hook.remove)
        hooks.enter_context(_as_written())
        yield
    for name in layers.keys() - called:
        raise Unusable(f"the network does not call the layer {name} as a module: name another")


def _input(name: str, module: nn.Module, args: Any, given: Any, answer: Any) -> Any:
    if type(module).__name__ in JOINT:
        inputs = _arguments(module, args, given)
        return inputs[TEXT], inputs[IMAGE]
    x = next(iter((*args, *given.values())), None)
    if not (isinstance(x, Tensor) and isinstance(answer, Tensor) and x.shape == answer.shape):
        said = f"{tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
        came = f"{tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise Unusable(f"the layer {name} cannot be skipped: it makes {said} of {came}")
    return x


def _arguments(module: nn.Module, args: Any, given: Any) -> Mapping[str, Any]:
    return inspect.signature(module.forward).bind(*args, **given).arguments


@dataclass
class Attention:
    """A call of `scaled_dot_product_attention`: q, k and v `[N, heads, tokens, channels]`, and
    which queries and keys are of the image. `settings`: its other arguments."""

    q: Tensor
    k: Tensor
    v: Tensor
    queries: slice
    keys: slice
    settings: dict[str, Any]

    def __call__(self) -> Tensor:
        return F.scaled_dot_product_attention(self.q, self.k, self.v, **self.settings)


@contextmanager
def attention(
    network: nn.Module, layers: Layers, change: Callable[[Attention], Tensor]
) -> Iterator[None]:
    """Within it, the self-attention inside these layers of `network` answers with
    `change(attention)`. It is told by its call of PyTorch's `scaled_dot_product_attention` with as
    many keys as queries, beside those in a module's `mem_kv`. Attention in modules with a true
    `is_cross_attention` stays as it is.

    Unusable if there is no self-attention in a layer.
    """
    mode = _Changed(change)
    with ExitStack() as hooks:

        def around(module: nn.Module, stack: list[Any], item: Callable[..., Any]) -> None:
            def enter(module: nn.Module, args: Any, given: Any) -> None:
                if get_ident() == mode.thread:
                    stack.append(item(module, args, given))

            def leave(*_: Any) -> None:
                if get_ident() == mode.thread:
                    stack.pop()

            before = module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True)
            hooks.callback(before.remove)
            hooks.callback(module.register_forward_hook(leave).remove)

        for module in network.modules():
            if type(module).__name__ in JOINT:
                around(module, mode.joint, _tokens)
            elif getattr(module, "is_cross_attention", False) is True:
                around(module, mode.inside, lambda *_: None)
            elif isinstance(getattr(module, "mem_kv", None), Tensor):  # lucidrains'
                around(module, mode.memory, lambda module, *_: module.mem_kv.shape[2])
        for name, modules in layers.items():
            for module in modules:
                if getattr(module, "is_cross_attention", False) is not True:
                    around(module, mode.inside, lambda *_, name=name: name)
        hooks.enter_context(_as_written())
        hooks.enter_context(mode)
        yield
    for name in layers.keys() - mode.changed:
        raise Unusable(f"no self-attention of PyTorch's is in the layer {name}: name another")


def _tokens(module: nn.Module, args: Any, given: Any) -> tuple[int, slice]:
    """Of a joint block: how many tokens there are, and which of them are of the image."""
    inputs = _arguments(module, args, given)
    text, image = inputs[TEXT].shape[1], inputs[IMAGE].shape[1]
    first = text if JOINT[type(module).__name__] else 0
    return text + image, slice(first, first + image)


@dataclass
class _Changed(TorchFunctionMode):
    """Where the call of the network is: `inside` which layers (None: cross-attention), in which
    `joint` block, and how many keys of its own the module has, before the others."""

    change: Callable[[Attention], Tensor]
    inside: list[str | None] = field(default_factory=list)
    joint: list[tuple[int, slice]] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    thread: int = field(default_factory=get_ident)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = self.inside[-1] if self.inside else None
        if f is F.scaled_dot_product_attention and name is not None:
            call = self._attention(*args, **kwargs)
            if call is not None:
                self.changed.add(name)
                return self.change(call)
        return f(*args, **kwargs)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **settings: Any
    ) -> Attention | None:
        """The call, if it is of self-attention."""
        tokens, memory = query.shape[-2], self.memory[-1] if self.memory else 0
        if key.shape[-2] != memory + tokens:
            return None
        image = slice(0, tokens)
        if self.joint and self.joint[-1][0] == tokens:
            image = self.joint[-1][1]
        keys = slice(memory + image.start, memory + image.stop)
        settings |= dict(zip(("attn_mask", "dropout_p", "is_causal"), rest, strict=False))
        return Attention(query, key, value, image, keys, settings)


@contextmanager
def _as_written() -> Iterator[None]:
    """Compiled modules run as they were written: what was compiled knows no hooks."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
