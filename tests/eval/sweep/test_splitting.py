"""Sweeps that are split: into shards, and over processes."""

import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kdiff.cli import main
from small_sweeps import COMMAND, ENVIRONMENT, SMALL, TOY, results


def test_shards_together_are_the_whole(kdiff_sweep, tmp_path):
    split, whole = tmp_path / "split", tmp_path / "whole"
    for i in (3, 1, 2):
        assert kdiff_sweep(split, *SMALL, "--shard", f"{i}/3").exit_code == 0
        assert len((split / f"cells-{i}-of-3.jsonl").read_text().splitlines()) == 2
    kdiff_sweep(whole, *SMALL)
    assert results(split) == results(whole) and len(results(whole)) == 6
    kdiff_sweep(split, *SMALL)  # knows what the shards have done
    assert not (split / "cells.jsonl").exists()


@pytest.mark.usefixtures("few_steps")
def test_processes_share_the_images_of_a_cell(workplace, tmp_path):
    """Two under gloo, with an uneven number of batches, against one."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = [
        *("sweep", "--model", str(workplace / "tiny.safetensors"), "--features", TOY),
        *("--ref", str(workplace / "reference.npz"), "--sampler", "heun,euler a", "--steps", "3"),
        *("--num", "42", "--batch", "8", "--out"),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **ENVIRONMENT,
        **{"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words, str(two)],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == b""
    assert CliRunner().invoke(main, [*words, str(one)]).exit_code == 0
    alone, together = results(one), results(two)
    assert alone.keys() == together.keys() and len(alone) == 2
    for key, (cell, status, metrics, floor, picture) in alone.items():
        assert together[key][:2] == (cell, status) and together[key][3:] == (floor, picture)
        for name, figure in metrics.items():
            assert together[key][2][name] == pytest.approx(figure, rel=1e-9)
