"""Programs that edit pictures in callbacks, and the solvers of `sample_dpm_fast` and
`sample_dpm_adaptive`, in `kdiff.compat.k_diffusion` against k-diffusion itself, through what
tools/make_k_diffusion_programs_golden.py stored."""

import json
import math

import numpy as np
import pytest
import torch

import places
from kdiff.compat import k_diffusion as K
from kdiff.driver import NonFiniteError

GOLDEN = json.loads((places.GOLDEN / "k_diffusion_programs.json").read_text())
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {"float32": 5e-6, "float64": 1e-12}
ENDS = {"sigma_min": 0.03, "sigma_max": 14.6}
SAMPLERS = [name for name in GOLDEN["names"]["sampling"] if name.startswith("sample_")]


def label(case):
    options = ",".join(f"{k}={v}" for k, v in case["options"].items())
    return f"{case['name']}({options})-{case['edit']}-{case['dtype']}"


def model(x, sigma):
    return (x / (1 + sigma[:, None] ** 2)).tanh()


def noise_sampler(x):
    index = torch.arange(1, x.numel() + 1, dtype=x.dtype).view_as(x)
    return lambda s, t: torch.sin(index + s.log() - t.log() / 2)


def start(dtype=torch.float64):
    return 14.6 * torch.arange(16, dtype=torch.float64).sin().reshape(2, 8).to(dtype)


def mask(info):
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
    "": lambda info: None,
    "x": lambda info: info["x"].clamp_(-2 * info["sigma"], 2 * info["sigma"]),
    "denoised": lambda info: info["denoised"].mul_(0.8).add_(0.05),
    "both": both,
    "mask": mask,
    "model": lambda info: None,  # its input is edited instead, by the model
}


def close(result, expected, tolerance):
    """Relative to the largest component."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    result = torch.as_tensor(result, dtype=torch.float64)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture
def default_dtype():
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


def run(case, callback):
    dtype = DTYPES[case["dtype"]]
    sigmas = K.sampling.get_sigmas_karras(6, **ENDS)
    torch.manual_seed(0)
    x, options = start(dtype), dict(case["options"])
    if case["name"].endswith("sde"):
        options["noise_sampler"] = noise_sampler(x)
    network = editing_model if case["edit"] == "model" else model
    return getattr(K.sampling, case["name"])(network, x, sigmas, None, callback, True, **options)


@pytest.mark.parametrize("case", GOLDEN["edits"], ids=label)
def test_callback_that_edits(case, default_dtype):
    default_dtype(DTYPES[case["dtype"]])
    close(run(case, EDITS[case["edit"]]), case["result"], TOLERANCE[case["dtype"]])


@pytest.mark.parametrize("case", [c for c in GOLDEN["edits"] if c["edit"] == "mask"], ids=label)
def test_callback_that_only_looks_changes_no_bit(case, default_dtype):
    default_dtype(DTYPES[case["dtype"]])
    assert torch.equal(run(case, lambda info: None), run(case, None))


def test_every_sampler_has_goldens_of_every_edit():
    cases = GOLDEN["edits"] + GOLDEN["solvers"]
    assert {(c["name"], c["edit"]) for c in cases} >= {
        (name, edit) for name in SAMPLERS for edit in EDITS if edit
    }


@pytest.mark.parametrize("name", ["sample_euler", "sample_heun", "sample_dpm_2", "sample_lms"])
def test_model_that_answers_into_one_buffer(name):
    """Compiled models with CUDA graphs do so. k-diffusion has computed the slope by then."""
    sigmas = K.sampling.get_sigmas_karras(6, **ENDS).double()
    buffer = torch.empty(2, 8, dtype=torch.float64)
    run = getattr(K.sampling, name)
    ours = run(lambda x, sigma: buffer.copy_(model(x, sigma)), start(), sigmas, disable=True)
    assert torch.equal(ours, run(model, start(), sigmas, disable=True))


def test_edit_that_a_version_counter_does_not_see():
    """Through `.data`, and through the array that shares a CPU tensor's memory."""
    case = next(c for c in GOLDEN["edits"] if (c["name"], c["edit"]) == ("sample_heun", "mask"))
    expected = run(case, mask)

    def by_data(info):
        mask({**info, "x": info["x"].data})

    def by_array(info):
        copy = info["x"].clone()
        mask({**info, "x": copy})
        info["x"].numpy()[:] = copy.numpy()

    assert torch.equal(run(case, by_data), expected)
    assert torch.equal(run(case, by_array), expected)


def test_edit_at_the_first_step_moves_the_callers_own_tensor():
    """The callback gets the caller's own tensor, as in k-diffusion."""
    x = start()
    sigmas = torch.tensor([14.6, 1.0, 0.0], dtype=torch.float64)
    K.sampling.sample_euler(model, x, sigmas, None, lambda info: info["x"].zero_(), True)
    assert not x.any()


@pytest.mark.parametrize(("name", "last", "next_draw"), GOLDEN["idle"])
def test_noise_that_is_not_used_is_drawn(name, last, next_draw):
    """So the generator is left where k-diffusion leaves it, and the next pictures are the same."""
    sigmas = K.sampling.get_sigmas_karras(6, **ENDS)[: None if last == "zero" else -1]
    torch.manual_seed(0)
    getattr(K.sampling, name)(model, start(torch.float32), sigmas, disable=True, eta=0.0)
    assert torch.randn(1).item() == next_draw


@pytest.mark.parametrize("case", GOLDEN["solvers"], ids=label)
def test_dpm_solver(case, default_dtype):
    dtype = DTYPES[case["dtype"]]
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    default_dtype(dtype)
    torch.manual_seed(0)
    options = {**ENDS, **case["options"]}
    x, seen, calls = start(dtype) * (options["sigma_max"] / 14.6), [], []

    def watched(x, sigma):
        calls.append(sigma.tolist())
        return editing_model(x, sigma) if case["edit"] == "model" else model(x, sigma)

    def callback(info):
        keys = sorted(info.keys() - {"x", "denoised"})
        numbers = [info[key].sum().item() for key in ("x", "denoised")]
        seen.append([*numbers, *(float(info[key]) for key in keys)])
        EDITS[case["edit"]](info)

    if case["info"]:
        options["return_info"] = True
    result = getattr(K.sampling, case["name"])(
        watched, x, callback=callback, disable=True, **options
    )
    if case["info"]:
        result, info = result
        assert info == case["info"]
    assert result.dtype == dtype
    close(result, case["result"], tolerance)
    for ours, theirs in ((seen, case["seen"]), (calls, case["calls"])):
        close(ours, theirs, 10 * tolerance)
    default_dtype(torch.float32)
    assert torch.randn(1).item() == case["next_draw"]


def test_dpm_solver_converges_with_its_order():
    """Data N(0, 0.5^2): x_t = x_s sqrt((t^2 + 0.25) / (s^2 + 0.25)). Halving the step divides the
    error of order k by 2^k."""

    def exact(x, sigma):
        return x * 0.25 / (sigma[:, None] ** 2 + 0.25)

    x = start()
    truth = x * ((0.1**2 + 0.25) / (10.0**2 + 0.25)) ** 0.5
    solver = K.sampling.DPMSolver(exact)
    for order in (1, 2, 3):
        errors = []
        for steps in (40, 80):
            ts = solver.t(torch.tensor([10.0, 0.1], dtype=torch.float64))
            ts = torch.linspace(*ts.tolist(), steps + 1, dtype=torch.float64)
            y = x
            for i in range(steps):
                y, _ = getattr(solver, f"dpm_solver_{order}_step")(y, ts[i], ts[i + 1])
            errors.append(float((y - truth).abs().max()))
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("bad", [{"sigma_min": 0.0}, {"sigma_max": float("nan")}])
def test_dpm_solver_refuses_sigmas(bad):
    for name in ("sample_dpm_fast", "sample_dpm_adaptive"):
        given = {**ENDS, **bad, **({"n": 5} if name.endswith("fast") else {})}
        with pytest.raises(ValueError, match="must be above 0"):
            getattr(K.sampling, name)(model, start(), **given, disable=True)


def test_dpm_solver_refuses_the_rest():
    with pytest.raises(ValueError, match="order must be 2 or 3, not 4"):
        K.sampling.sample_dpm_adaptive(model, start(), **ENDS, order=4, disable=True)
    with pytest.raises(ValueError, match="eta must be 0"):
        K.sampling.sample_dpm_fast(model, start(), 14.6, 0.03, 5, eta=1.0, disable=True)
    for n in (0, -1, 2.5, "5", True):
        with pytest.raises(ValueError, match="n must be a whole number, at least 1, not"):
            K.sampling.sample_dpm_fast(model, start(), **ENDS, n=n, disable=True)
    assert K.sampling.sample_dpm_fast(model, start(), **ENDS, n=np.int64(4), disable=True).any()


@pytest.mark.parametrize(
    ("network", "options"),
    [(lambda x, sigma: x * torch.nan, {}), (model, {"h_init": 0.0})],
)
def test_dpm_adaptive_ends_where_k_diffusion_never_does(network, options):
    with pytest.raises(NonFiniteError, match="step size of dpm_adaptive is"):
        K.sampling.sample_dpm_adaptive(network, start(), **ENDS, **options, disable=True)


def test_step_after_an_infinite_error_is_shorter():
    pid = K.sampling.PIDStepSizeController(1.0, 0.4, 1.0, 0.2, order=3)
    assert not pid.propose_step(math.inf)
    assert 0.2 < pid.h < 0.22
    assert pid.propose_step(torch.tensor(0.0))
