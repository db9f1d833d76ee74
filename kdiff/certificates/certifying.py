"""`kdiff.certify`: certificates of many samplers, in several processes if there are cores."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from kdiff.certificates.certificate import Certificate, certificate
from kdiff.counts import whole_number
from kdiff.samplers import REGISTRY, resolve


def certify(
    names: Sequence[str] | None = None,
    *,
    jobs: int = 1,
    watch: Callable[[Certificate], None] | None = None,
) -> list[Certificate]:
    """The certificate of each of these samplers, by any of their names; of all, with those of other
    packages, if None. `jobs`: in how many processes; `watch` gets each as it is finished. With
    several, samplers must be known to a fresh Python, and a program needs its
    `if __name__ == "__main__"`. UnknownName, a ValueError, for a name that there is not.
    """
    jobs = whole_number("jobs", jobs, 1)
    known = chosen(names)
    found = {}
    for one in _measured(known, min(jobs, len(known))):
        if watch is not None:
            watch(one)
        found[one.sampler] = one
    return [found[name] for name in known]


def chosen(names: Sequence[str] | None) -> list[str]:
    """The samplers' own names, each once."""
    if names is None:
        return list(REGISTRY.all())
    return list(dict.fromkeys(resolve(name).sampler.name for name in names))


def _measured(names: Sequence[str], jobs: int) -> Iterator[Certificate]:
    """In the order in which they are finished."""
    if jobs <= 1:
        yield from map(_by_name, names)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin) as pool:
        waiting = [pool.submit(_by_name, name) for name in names]
        try:
            for one in as_completed(waiting):
                yield one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """One thread a process; and an interrupt ends them through the one that waits for them."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _by_name(name: str) -> Certificate:
    return certificate(resolve(name).sampler)
