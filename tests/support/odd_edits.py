"""Edits that use what the contract admits: they are registered for as long as a test needs them."""

import math
from collections import Counter
from contextlib import contextmanager
from typing import Annotated

import torch

from kdiff.editing import EDITS, edit
from kdiff.options import Option


@contextmanager
def registered():
    before = dict(EDITS)

    @edit("clamped", paper="none", aliases=("clip",), presets={"tight": {"most": 0.1}})
    def clamped(start, x, sigmas, *, noise, most: Annotated[float, Option("bound", 0)] = 1.0):
        walk = start(x, sigmas)
        while walk.asks:
            answers = yield list(walk.asks)
            walk.answer(*(d.clamp(-most, most) for d in answers))
        return walk.result

    @edit("doubled", paper="none")
    def doubled(start, x, sigmas, *, noise):
        walk = start(x, sigmas)
        while walk.ask:
            d = yield walk.ask
            walk.answer(2 * d)
        return walk.result

    @edit("shaken", paper="none")
    def shaken(start, x, sigmas, *, noise, much: Annotated[float, Option("noise", 0)] = 0.1):
        """Asks about x with some noise more, each time another one."""
        walk, times = start(x, sigmas), Counter()
        while walk.asks:
            asks = list(walk.asks)
            for i, ask in enumerate(asks):
                same = ask.sigma, str(ask.rows)  # the count of other samples must not matter
                n = noise(ask.sigma, ask.sigma, times[same], stream="shake")
                rows = slice(None) if ask.rows is None else list(ask.rows)
                asks[i] = ask._replace(x=ask.x + much * ask.sigma * n[rows])
                times[same] += 1
            walk.answer(*(yield asks))
        return walk.result

    def twice(inner, grid, given):  # authors name these as they like
        half = grid[: len(grid) // 2 + 1]
        return [*inner(half), *inner(half) * given["times"], *inner(grid[len(half) - 1 :])]

    @edit("repeated", paper="none", levels=twice)
    def repeated(
        start, x, sigmas, *, noise, times: Annotated[int, Option("how often more", 0)] = 1
    ):
        """The first half of the grid, and up and down again, as RePaint does; then the rest."""
        middle = len(sigmas) // 2
        top, bottom = sigmas[0], sigmas[middle]
        for k in range(1 + times):
            if k:
                x = x + math.sqrt(top**2 - bottom**2) * noise(bottom, top, k)
            x = yield from whole(start(x, sigmas[: middle + 1], k))
        return (yield from whole(start(x, sigmas[middle:])))

    def whole(walk):
        while walk.asks:
            walk.answer(*(yield list(walk.asks)))
        return walk.result

    @edit("pulled", paper="none")
    def pulled(start, x, sigmas, *, noise, rate: Annotated[float, Option("of descent", 0)] = 0.5):
        """D - rate times the gradient of |D|^2 / 2; answers with the graph, and asks with it."""
        walk = start(x, sigmas)
        while walk.ask:
            with torch.enable_grad():
                at = walk.ask.x.detach().requires_grad_()
                d = yield walk.ask._replace(x=at, graph=True)
                (slope,) = torch.autograd.grad(d.square().sum() / 2, at, retain_graph=True)
                walk.answer(d - rate * slope)
        with torch.enable_grad():
            return walk.result + 0 * at.sum()

    yield
    for name in EDITS.keys() - before.keys():
        del EDITS[name]
