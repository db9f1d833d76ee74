"""Callbacks and models that edit what k-diffusion's samplers work on, and its DPM solvers: what
tools/make_k_diffusion_programs_golden.py runs and stores."""

from __future__ import annotations

import torch

from make_k_diffusion_compat_golden import ENDS, model, noise_sampler, start

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def mask(info):
    """Deforum's: outside of a mask, the picture is put back to the noise level of this step."""
    keep = torch.arange(8) < 3 + info["i"]
    put_back = torch.linspace(-1, 1, 8).to(info["x"]) + info["sigma"] * 0.5
    info["x"].copy_(torch.where(keep, info["x"], put_back))


def both(info):
    if info["i"] % 2:
        info["denoised"][:, 2:5] = 0.3
        info["x"][0] *= 0.9


def editing_model(x, sigma):
    """A model that puts a part of its own input back to the noise level, as for inpainting."""
    x[:, :3] = 0.2 + sigma[:, None] * torch.linspace(-1, 1, 3).to(x)
    return model(x, sigma)


EDITS = {
    "x": lambda info: info["x"].clamp_(-2 * info["sigma"], 2 * info["sigma"]),
    "denoised": lambda info: info["denoised"].mul_(0.8).add_(0.05),
    "both": both,
    "mask": mask,
    "model": lambda info: None,  # its input is edited instead, by the model
}
FAST = [
    *({"n": n} for n in (1, 2, 3, 4, 5, 6, 9)),
    {"n": 7, "eta": 0.5, "s_noise": 0.9},
    {"n": 8, "eta": 1.0},
]
ADAPTIVE = [
    {},
    {"order": 2},
    {"order": 2, "rtol": 0.2, "h_init": 1.5},
    {"rtol": 0.01, "atol": 0.001, "pcoeff": 0.3, "icoeff": 0.6, "dcoeff": 0.1},
    {"eta": 0.7, "s_noise": 0.9},
    {"sigma_min": 14.6, "sigma_max": 0.03},
    {"h_init": 3.0, "accept_safety": 0.9},
]


def edited(sampling, name, options, edit, dtype):
    torch.set_default_dtype(dtype)
    sigmas = sampling.get_sigmas_karras(6, **ENDS)
    torch.manual_seed(0)
    x = start(dtype)
    if name.endswith("sde"):
        options = {**options, "noise_sampler": noise_sampler(x)}
    network = editing_model if edit == "model" else model
    result = getattr(sampling, name)(network, x, sigmas, None, EDITS[edit], True, **options)
    torch.set_default_dtype(torch.float32)
    return result.tolist()


def idle(sampling, name, last):
    """What is the next draw where noise is drawn and then not used."""
    sigmas = sampling.get_sigmas_karras(6, **ENDS)[: None if last == "zero" else -1]
    torch.manual_seed(0)
    getattr(sampling, name)(model, start(torch.float32), sigmas, disable=True, eta=0.0)
    return torch.randn(1).item()


def solved(sampling, name, options, edit, dtype):
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    options = {**ENDS, **options}
    x, seen, calls = start(dtype) * (options["sigma_max"] / 14.6), [], []

    def watched(x, sigma):
        calls.append(sigma.tolist())
        return editing_model(x, sigma) if edit == "model" else model(x, sigma)

    def callback(info):
        keys = sorted(info.keys() - {"x", "denoised"})
        numbers = [info[key].sum().item() for key in ("x", "denoised")]
        seen.append([*numbers, *(float(info[key]) for key in keys)])
        if edit:
            EDITS[edit](info)

    if name == "sample_dpm_adaptive":
        options["return_info"] = True
    result = getattr(sampling, name)(watched, x, callback=callback, disable=True, **options)
    x, info = result if isinstance(result, tuple) else (result, None)
    torch.set_default_dtype(torch.float32)
    draw = torch.randn(1).item()
    return {"result": x.tolist(), "info": info, "seen": seen, "calls": calls, "next_draw": draw}
