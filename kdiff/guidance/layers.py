"""The layers of a network, by name: `mid_block`, `*attn1`, `transformer_blocks.7`, or 7."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kdiff.names import UnknownName

if TYPE_CHECKING:
    from torch import nn

Layers = Mapping[str, "list[nn.Module]"]  # by what the user calls them
AUTO = "auto"

# Where networks have their list of transformer blocks, and U-Nets their middle.
BLOCKS = ("transformer_blocks", "blocks", "joint_blocks", "joint_transformer_blocks", "layers")
EDM_MIDDLE = "dec.*_in0"  # also EDM2's
MIDDLES = (
    "mid_block",  # diffusers
    "middle_block",  # openai
    "mid_level",  # k-diffusion v2
    "mid_attn",  # lucidrains
    EDM_MIDDLE,
    "u_net.u_blocks.0.[01]",  # k-diffusion v1: the deepest block and its attention
)
PUBLISHED = (7, 8, 9)  # of the 24 blocks of Stable Diffusion 3.5 medium


def find_layers(network: nn.Module, said: str, attention: bool = False) -> Layers:
    """The layers of `network` that `said` names, for each name in it. A name is the path of a
    module, in which `*` stands for anything, or the number of a transformer block; `+` joins
    several. Adapters around a network do not count in paths.

    `auto` is the middle of a U-Net, or transformer blocks 7, 8 and 9, or, if there are not as many,
    the one in the middle. Of EDM's U-Nets, it is one block in the middle, or, for `attention`, all
    at the lowest resolution: on the packaged models, one alone has hardly any effect.

    UnknownName or ValueError says what is wrong.
    """
    top = _inside(network)
    modules = {name: module for name, module in top.named_modules() if name}
    if not modules:
        raise ValueError("the network has no layers that could be changed")
    names = (
        _usual(modules, attention) if said == AUTO else [name.strip() for name in said.split("+")]
    )
    return {name: list(_matching(name, modules)) for name in names}


def _inside(network: nn.Module) -> nn.Module:
    """Without what only holds another module, as adapters and torch.compile do."""
    children = dict(network.named_children())
    while len(children) == 1 and _is_called(network) and not _holds_tensors(network):
        (network,) = children.values()
        children = dict(network.named_children())
    return network


def _holds_tensors(module: nn.Module) -> bool:
    return bool([*module.parameters(recurse=False), *module.buffers(recurse=False)])


def _is_called(module: nn.Module) -> bool:
    """Not only a list or a dictionary of layers."""
    from torch import jit, nn

    if isinstance(module, jit.ScriptModule):
        raise ValueError("the network is a program of TorchScript, whose layers cannot be changed")
    return "forward" in vars(module) or type(module).forward is not nn.Module.forward


def _usual(modules: Mapping[str, nn.Module], attention: bool) -> list[str]:
    for middle in MIDDLES:
        found = next((name for name in modules if fnmatchcase(name, middle)), None)
        if found is not None and attention and middle == EDM_MIDDLE:
            return ["*" + found.removeprefix("dec").removesuffix("in0") + "*"]  # *.8x8_*
        if found is not None:
            return [middle]
    blocks = _blocks(modules)
    if blocks is None:
        raise ValueError(f"say which layers: layers={'+'.join(_outermost(modules))}, say")
    n = len(list(modules[blocks].children()))
    return [str(i) for i in PUBLISHED] if n > max(PUBLISHED) else [str(n // 2)]


def _blocks(modules: Mapping[str, nn.Module]) -> str | None:
    return next((name for name in BLOCKS if name in modules), None)


def _matching(name: str, modules: Mapping[str, nn.Module]) -> Iterator[nn.Module]:
    """The outermost layers of this name."""
    if name.isdecimal():
        name = _numbered(int(name), modules)
    found = _outermost([other for other in modules if fnmatchcase(other, name)])
    if not found:
        near = difflib.get_close_matches(name, modules, n=3)
        known = ", ".join(near or _outermost(modules))
        raise UnknownName(f"the network has no layer {name!r:.80}; there is {known}")
    for one in found:
        yield from _called(modules[one])


def _numbered(number: int, modules: Mapping[str, nn.Module]) -> str:
    blocks = _blocks(modules)
    if blocks is None:
        known = ", ".join(_outermost(modules))
        raise ValueError(f"its layers have names, not numbers such as {number}; there is {known}")
    last = len(list(modules[blocks].children())) - 1
    if number > last:
        raise ValueError(f"the network has no layer {number}; there is 0 to {last}")
    return f"{blocks}.{number}"


def _outermost(names: Iterable[str]) -> list[str]:
    """Without those inside another one."""
    kept: list[str] = []
    for name in sorted(names, key=lambda name: name.count(".")):
        if not any(name.startswith(f"{other}.") for other in kept):
            kept.append(name)
    return kept


def _called(module: nn.Module) -> Iterator[nn.Module]:
    if _is_called(module):
        yield module
    else:
        for child in module.children():
            yield from _called(child)
