"""Noise that is drawn in threads: the same bits, and errors that arrive."""

import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import kdiff
from kdiff.noise import _increment
from kdiff.normals import PORTION


def one_by_one(kind: int, a: int, b: int, seeds: list[int], size: int) -> np.ndarray:
    """A generator of its own for each row: what makes a seed's numbers what they are."""
    counter = np.array([0, a % 2**64, b, kind], dtype=np.uint64)
    generators = [np.random.Generator(np.random.Philox(key=k, counter=counter)) for k in seeds]
    return np.stack([g.standard_normal(size, dtype=np.float32) for g in generators])


@pytest.fixture(params=[1, 3])
def threads(request):
    """The number of threads that torch computes in."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


SEEDS = [2**64 - 1, 0, 12345, 2**63, 7]
MANY = 2 * PORTION // len(SEEDS) + 1  # numbers of a seed that are worth a second thread


def test_threads_do_not_count(threads, monkeypatch):
    """To the bit, signs of zeros too; and no thread is left."""
    started = []
    monkeypatch.setattr(
        kdiff.normals, "ThreadPoolExecutor", lambda n: started.append(n) or ThreadPoolExecutor(n)
    )
    running = set(threading.enumerate())
    noise = kdiff.Noise(SEEDS, (MANY,))
    s, t = 7.0, 2.5
    white = one_by_one(1, *np.array([s, t]).view(np.uint64).tolist(), SEEDS, MANY)
    assert white.tobytes() == noise.white(s, t).numpy().tobytes()
    assert one_by_one(0, 0, 0, SEEDS, MANY).tobytes() == noise.initial().numpy().tobytes()
    assert set(threading.enumerate()) == running
    assert started == ([] if threads == 1 else [2, 2])


@pytest.mark.parametrize(
    ("s", "t", "size"),
    [(7.0, 2.5, 3000), (2.5, 2.4, 3000), (80, 0.01, 300), (0.01, 0.0, 300), (3.0, 2.0, MANY)],
)
def test_a_brownian_increment_is_the_sum_of_its_nodes(threads, s, t, size):
    """In their order, in float32: the same bits in any number of threads."""
    terms = _increment(s, t)
    norm = math.sqrt(sum(c * c for c in terms.values()))
    total = np.zeros((len(SEEDS), size), dtype=np.float32)
    for node, c in terms.items():
        total += one_by_one(*node, SEEDS, size) * np.float32(c / norm)
    noise = kdiff.Noise(SEEDS, (size, 1))
    noise.brownian(2 * s, s)  # some of its nodes are also nodes of the next
    assert total.tobytes() == noise.brownian(s, t).numpy().tobytes()


def test_an_error_in_a_thread_arrives(threads, monkeypatch):
    """And the next draw is whole: nothing half-drawn is kept."""
    noise = kdiff.Noise(SEEDS, (MANY,))
    with monkeypatch.context() as patch:
        patch.setattr(np.random, "Generator", lambda bits: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            noise.brownian(7.0, 2.5)
    fresh = kdiff.Noise(SEEDS, (MANY,)).brownian(7.0, 2.5)
    assert torch.equal(noise.brownian(7.0, 2.5), fresh)


def test_a_thread_may_draw_when_the_main_thread_has_ended():
    program = f"""
import threading, time, torch, kdiff
torch.set_num_threads(2)
def work():
    threading.main_thread().join()
    print(kdiff.Noise({SEEDS}, ({MANY},)).initial().shape)
threading.Thread(target=work).start()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.strip() == f"torch.Size([{len(SEEDS)}, {MANY}])", ended.stderr
