"""Guidance away from a network with layers left out, or with other attention: against the same
networks changed by hand."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, get_ident

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdiff
from attending_networks import KINDS, X, attending, model_of
from kdiff.guidance import guide, pag, seg, slg

every_kind = pytest.mark.parametrize("kind", KINDS)
every_guidance = pytest.mark.parametrize("guided", [slg, pag, seg])


def close(found, expected):
    assert expected.isfinite().all()
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


class PassOn(nn.Module):
    def __init__(self, instead_of):
        super().__init__()
        self.in_channels = getattr(instead_of, "in_channels", None)

    def forward(self, x, *_):
        return x


# --- skipped layers ---

SKIPPED = {
    "u_net.u_blocks.0.0": "k_diffusion_v1",
    "middle_block": "openai_unet",
    "mid_level": "k_diffusion_v2",
    "mid_attn": "lucidrains_unet",
}


@pytest.mark.parametrize("layers", SKIPPED)
def test_slg_is_a_network_without_the_layer(layers):
    network = attending(SKIPPED[layers])
    shorter = copy.deepcopy(network)
    parent, _, name = layers.rpartition(".")
    setattr(shorter.get_submodule(parent), name, PassOn(network.get_submodule(layers)))
    c, worse = (model_of(net)(X, 2.0) for net in (network, shorter))
    assert (c - worse).abs().max() > 0.01
    close(slg(model_of(network), 1.7, layers)(X, 2.0), c + 1.7 * (c - worse))


def test_slg_removes_one_block_of_a_list():
    network = attending("k_diffusion_v2")
    shorter = copy.deepcopy(network)
    del shorter.mid_level[1]
    c, worse = (model_of(net)(X, 2.0) for net in (network, shorter))
    close(slg(model_of(network), layers="mid_level.1")(X, 2.0), c + 2.8 * (c - worse))


# --- attention ---


def explicit(q, k, v, attn_mask=None, *, scale=None, see):
    """Attention by its formula, with the queries and the map that `see` makes."""
    memory = k.shape[-2] - q.shape[-2]
    q, allowed = see(q, memory)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    for mask in (attn_mask, allowed):
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v


def only_itself(q, memory):
    n = q.shape[-2]
    return q, torch.cat([torch.ones(n, memory), torch.eye(n)], dim=1).bool()


def the_mean(q, memory):
    return q.mean(-2, keepdim=True).expand_as(q), None


def a_gaussian(q, memory, sigma=0.7, aspect=1.0):
    """The published one: a kernel of at most 6 sigma, reflected at the edges."""
    height = math.isqrt(int(q.shape[-2] * aspect))
    image = q.movedim(-1, -2).reshape(-1, 1, height, q.shape[-2] // height)
    kernel = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / sigma) ** 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    image = F.conv2d(F.pad(image, (2, 2, 2, 2), "reflect"), kernel[None, None].to(q))
    return image.reshape(q.movedim(-1, -2).shape).movedim(-1, -2), None


ATTENTION = {"pag": only_itself, "seg": the_mean, "seg:blur=0.7": a_gaussian}


@every_kind
@pytest.mark.parametrize("what", ATTENTION)
def test_pag_and_seg_are_attention_by_its_formula(kind, what, monkeypatch):
    model = model_of(attending(kind))
    c, found = model(X, 2.0), guide(model, what, scale=1.7, layers="*")(X, 2.0)
    monkeypatch.setattr(F, "scaled_dot_product_attention", partial(explicit, see=ATTENTION[what]))
    worse = model(X, 2.0)
    assert (c - worse).abs().max() > 1e-3 * c.abs().max()
    close(found, c + 1.7 * (c - worse))


@every_kind
@every_guidance
def test_the_usual_layers_of_each_network_have_an_effect(kind, guided):
    model = model_of(attending(kind))
    c = model(X, 2.0)
    assert (guided(model)(X, 2.0) - c).abs().max() > 1e-4 * c.abs().max()


def test_only_the_layers_that_were_named_change():
    """The first block's attention, in a network whose others are as they were."""
    network = attending("song_unet")
    changed = copy.deepcopy(network)
    block = changed.enc["8x8_block0"]

    def values(x):
        v = block.qkv(x).unflatten(1, (-1, 3))[:, :, 2]
        return block.proj(v)

    block._attention = values
    c, worse = (model_of(net)(X, 2.0) for net in (network, changed))
    close(pag(model_of(network), 3, "enc.8x8_block0")(X, 2.0), c + 3 * (c - worse))


def test_images_that_are_no_squares(monkeypatch):
    model = model_of(attending("lucidrains_unet"))
    x = torch.randn(1, 3, 12, 8, generator=torch.Generator().manual_seed(2))
    c, found = model(x, 1.0), seg(model, 1.7, 0.7, "*")(x, 1.0)
    see = partial(a_gaussian, aspect=1.5)
    monkeypatch.setattr(F, "scaled_dot_product_attention", partial(explicit, see=see))
    close(found, c + 1.7 * (c - model(x, 1.0)))


# --- cost, traces, composition ---


@every_guidance
@pytest.mark.parametrize("options", [{"scale": 0}, {"low": 3.0}, {"high": 1.0}])
def test_no_guidance_has_the_bits_of_the_model_itself_and_costs_nothing(guided, options):
    model, calls = counted()
    other = guided(model, **options)
    assert other.evaluations(2.0) == 1
    calls.clear()
    d = other(X, 2.0)
    assert len(calls) == 1 and torch.equal(d, model(X, 2.0))


def counted():
    model, calls = model_of(attending("song_unet")), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    return model, calls


def test_they_share_c_and_each_adds_one_evaluation():
    model, calls = counted()
    found = {one: one(model)(X, 2.0) for one in (slg, pag, seg)}
    c = model(X, 2.0)
    all_three = pag(seg(slg(pag(model))))
    calls.clear()
    d = all_three(X, 2.0)
    assert len(calls) == all_three.evaluations(2.0) == 5
    close(d, 2 * found[pag] + found[seg] + found[slg] - 3 * c)


def test_with_cfg():
    """D = u + w (c - u) + w' (c - c'), in both orders of the two."""
    labelled = kdiff.load("mnist")
    x, cond = torch.randn(2, 1, 28, 28), {"class_labels": torch.tensor([3, 7])}
    c = labelled(x, 2.0, **cond)
    u = labelled(x, 2.0, class_labels=torch.tensor([-1, -1]))
    away = {y: pag(labelled, 1.0)(x, 2.0, class_labels=y) for y in (cond["class_labels"],)}
    shift = away[cond["class_labels"]] - c
    both = pag(guide(labelled, "cfg", scale=2), 3.0)
    close(both(x, 2.0, **cond), u + 2 * (c - u) + 3 * shift)
    assert both.evaluations(2.0) == 3
    assert guide(pag(labelled), "cfg", scale=2).evaluations(2.0) == 4
    only = pag(guide(labelled, "cfg", scale=0), 3.0)
    close(only(x, 2.0, **cond), u + 3 * shift)
    assert only.evaluations(2.0) == 3


@every_guidance
def test_nothing_is_left_behind_also_after_an_error(guided):
    model = model_of(attending("song_unet"))
    before, d = traces(model.network), model(X, 2.0)
    guided(model)(X, 2.0)
    assert traces(model.network) == before
    model.network.dec["8x8_aux_conv"].forward = None
    with pytest.raises(TypeError):
        guided(model)(X, 2.0)
    del model.network.dec["8x8_aux_conv"].forward
    assert traces(model.network) == before and torch.equal(model(X, 2.0), d)
    assert torch.overrides._get_current_function_mode() is None


def traces(network):
    """All that its modules have, parameters and buffers aside."""
    return [
        {key: repr(value) for key, value in vars(module).items() if key != "_modules"}
        for module in network.modules()
    ]


@every_guidance
def test_other_threads_do_not_notice(guided):
    """One that calls the network at the same time. It waits in a layer that is changed, while this
    one comes there through layers that are not; and goes on while this one is there."""
    model, here, elsewhere = model_of(attending("song_unet")), get_ident(), []
    options = {"layers": "dec.4x4_in0"}
    d, expected = model(X, 2.0), guided(model, **options)(X, 2.0)
    there, on = Event(), Event()

    def begin(*_):
        if get_ident() == here:
            elsewhere.append(threads.submit(model, X, 2.0))
            assert there.wait(30)

    def in_the_layer(*_):
        if get_ident() == here:
            on.set()
            assert torch.equal(elsewhere[-1].result(30), d)
            there.clear(), on.clear()
        else:
            there.set()
            assert on.wait(30)

    model.network.map_layer0.register_forward_hook(begin)
    model.network.dec["4x4_in0"].conv0.register_forward_hook(in_the_layer)
    with ThreadPoolExecutor(1) as threads:
        assert torch.equal(guided(model, **options)(X, 2.0), expected)
    assert len(elsewhere) == 2


@every_guidance
def test_seeds_have_the_same_samples_in_any_batch_and_another_process(guided):
    model = guided(model_of(attending("song_unet")), 1.5, low=0.01, high=30)
    other = pickle.loads(pickle.dumps(model))
    x = kdiff.sample(model, steps=3, seeds=[4, 1, 7], deterministic=True)
    again = kdiff.sample(other, steps=3, seeds=[7, 4], batch=1, deterministic=True)
    padded = kdiff.sample(other, steps=3, seeds=[7, 4, 1], deterministic=True)
    assert torch.equal(padded, x[[2, 0, 1]])
    close(again, x[[2, 0]])


@every_guidance
def test_a_compiled_network_gives_the_same(guided):
    model = model_of(attending("song_unet"))
    expected = guided(model)(X, 2.0)
    model.network.compile(backend="eager")
    close(guided(model)(X, 2.0), expected)
    close(
        guided(model_of(torch.compile(attending("song_unet"), backend="eager")))(X, 2.0), expected
    )
