"""Samplers that are not what they claim: their certificates say so, in words."""

import math
from itertools import pairwise

import pytest
import torch

import odd_samplers
from kdiff.certificates import certificate
from kdiff.samplers import Ask
from kdiff.samplers.steps import euler_step
from odd_samplers import local


def steps(x, sigmas, change=lambda x, s: x):
    for s, t in pairwise(sigmas):
        d = yield x, s
        x = change(euler_step(x, d, s, t), t)
    return x


@local(order=2)
def not_second_order(x, sigmas):
    return steps(x, sigmas)


@local(calls=2)
def not_two_calls(x, sigmas):
    return steps(x, sigmas)


@local(linear=False)
def growing(x, sigmas):
    return steps(x, sigmas, lambda x, t: 1e9 * x if len(sigmas) <= 4 else x)


@local(linear=False)
def of_the_batch(x, sigmas):
    return steps(x, sigmas, lambda x, t: x + 0.01 * (x - x.mean(0)))


@local(linear=False)
def of_the_generator(x, sigmas):
    return steps(x, sigmas, lambda x, t: x + 1e-3 * torch.rand_like(x))


@local(noise="white", ode=None)
def too_little_noise(x, sigmas, *, noise):
    for s, t in pairwise(sigmas):
        d = yield x, s
        x = d + 0.5 * t * noise(s, t)
    return x


@local(noise="brownian", ode={}, strong=2.0, weak=2.0)
def not_an_sde_of_second_order(x, sigmas, *, noise):
    for s, t in pairwise(sigmas):
        d = yield x, s
        x = (t / s) ** 2 * x + (1 - (t / s) ** 2) * d
        x = x + t * math.sqrt(1 - (t / s) ** 2) * noise(s, t)
    return x


@local()
def downwards_only(x, sigmas):
    assert sigmas[0] > sigmas[-1], "it only goes down"
    return steps(x, sigmas)


@local(linear=False, nfe=None, limit=10)
def beyond_its_limit(x, sigmas):
    for _ in range(11):
        yield Ask(x, sigmas[0])
    return x


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (not_second_order, "its order is 0.99 ± 0.00, not 2"),
        (not_two_calls, "8 steps to zero take 8 evaluations, not 14"),
        (growing, "times as large as the data"),
        (of_the_batch, "depends on the batch that a seed is in"),
        (of_the_generator, "on more than the seed"),
        (too_little_noise, "standard errors off"),
        (not_an_sde_of_second_order, "its strong order is"),
        (not_an_sde_of_second_order, "its weak order is"),
        (downwards_only, "round trip cannot be measured: AssertionError: it only goes down"),
        (beyond_its_limit, "has not ended after 10 evaluations"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_it_fails_in_words(sampler, words):
    found = certificate(sampler)
    assert not found.passes
    assert any(words in one for one in found.failures), found.failures


def test_an_adaptive_sampler_is_measured_by_its_tolerance():
    (found, *_) = certificate(odd_samplers.adaptive).settings
    kept = found.findings["tolerance"]
    assert "order" not in found.findings
    assert kept.values["nfe"] == sorted(kept.values["nfe"])
    assert kept.values["limit"] < 1e-5
    evaluations, errors = zip(*found.findings["errors"].values["wide"], strict=True)
    assert evaluations == tuple(sorted(evaluations))
    assert errors == tuple(sorted(errors, reverse=True))
