"""All names that other projects have for samplers and schedules resolve, or are refused with the
reason."""

import pytest

import kdiff
import peer_names
from kdiff.names import UnknownName, normalise
from kdiff.samplers import REGISTRY, resolve
from kdiff.samplers.registry import SCHEDULE_SUFFIXES
from kdiff.schedules import SCHEDULES


@pytest.mark.parametrize("name", dict.fromkeys(peer_names.SAMPLERS))
def test_a_sampler_s_name(name):
    if normalise(name) in REGISTRY.refused:
        with pytest.raises(UnknownName, match=f"there is no sampler .*: {'.' * 10}"):
            resolve(name)
    else:
        assert resolve(name).sampler.name in REGISTRY


@pytest.mark.parametrize("name", dict.fromkeys(peer_names.SCHEDULES))
def test_a_schedule_s_name(name):
    if normalise(name) in SCHEDULES.refused:
        with pytest.raises(UnknownName, match=r"there is no schedule .*: "):
            kdiff.schedule(name, 3)
    else:
        assert SCHEDULES.find(name).name in SCHEDULES


def test_names_in_prefix_and_suffix():
    for name, sampler, schedule in (
        ("k_euler_a", "euler_ancestral", None),
        ("k_dpm_2", "dpm_2", None),
        ("k_lms", "lms", None),
        ("k_dpmpp_2m_ka", "dpmpp_2m", "karras"),
        ("k_dpmpp_2s_a_ka", "dpmpp_2s_ancestral", "karras"),
        ("dpmpp_2m_sde_gpu", "dpmpp_2m_sde", None),
        ("DPM++ 2M SGM Uniform", "dpmpp_2m", "sgm_uniform"),
        ("Euler a Beta", "euler_ancestral", "beta"),
        ("Heun Align Your Steps", "heun", "align_your_steps"),
        ("Euler SGM", "euler", "trailing"),
        ("KDPM2 a", "dpm_2_ancestral", None),
        ("Heun FlowMatch", "runge_kutta", None),
    ):
        found = resolve(name)
        assert (found.sampler.name, found.schedule) == (sampler, schedule), name


@pytest.mark.parametrize("suffix", SCHEDULE_SUFFIXES)
def test_each_suffix_is_a_schedule(suffix):
    assert SCHEDULES.find(suffix)
    assert resolve(f"Euler {suffix}").schedule == suffix


def test_nothing_that_is_refused_is_there():
    for registry in (REGISTRY, SCHEDULES):
        known = {normalise(n) for name in registry for n in (name, *registry.other_names(name))}
        assert registry.refused.keys().isdisjoint(known)


def test_a_refusal_says_what_to_do():
    with pytest.raises(UnknownName, match="use --sampler euler --guide cfg_pp"):
        resolve("euler_cfg_pp")


def test_the_list_of_diffusers_is_that_of_the_installed_one():
    diffusers = pytest.importorskip("diffusers")
    if diffusers.__version__.startswith("0.42."):
        classes = {name for name in dir(diffusers) if name.endswith("Scheduler")}
        assert set(peer_names.DIFFUSERS) == classes - {"KDiffScheduler"}
