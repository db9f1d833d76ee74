"""The small parts of k-diffusion that programs use (losses, figures, pictures, likelihoods), in
`kdiff.compat.k_diffusion`. They are held against what tools/make_k_diffusion_programs_golden.py
stored of k-diffusion, and against what they stand for."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from k_diffusion_golden import DTYPES, GOLDEN
from kdiff.compat import k_diffusion as K
from kdiff.driver import NonFiniteError


def start():
    return 14.6 * torch.arange(16, dtype=torch.float64).sin().reshape(2, 8)


def test_losses():
    def network(x, sigma, return_variance=False):
        output = (x + sigma[:, None] / 3).sin()
        return (output, x.mean(1) / 9) if return_variance else output

    x, sigma = start(), torch.tensor([0.7, 0.033], dtype=torch.float64)
    layers = K.layers
    wrappers = {
        "soft-min-snr": layers.Denoiser(network, 0.5, "soft-min-snr"),
        "snr": layers.Denoiser(network, 0.5, "snr"),
        "variance": layers.DenoiserWithVariance(network, 0.5),
        "simple": layers.SimpleLossDenoiser(network, 0.5),
    }
    for key, wrapper in wrappers.items():
        expected = torch.tensor(GOLDEN["losses"][key], dtype=torch.float64)
        torch.testing.assert_close(wrapper.loss(x, x.cos(), sigma), expected, rtol=1e-12, atol=0)
    own = layers.Denoiser(network, 0.5, lambda sigma: sigma * 0 + 2)
    plain = layers.Denoiser(network, 0.5)
    assert torch.equal(own.loss(x, x, sigma), 2 * plain.loss(x, x, sigma))
    with pytest.raises(NotImplementedError, match="scales=1"):
        layers.Denoiser(network, scales=3).loss(x, x, sigma)
    with pytest.raises(ValueError, match="one of karras, soft-min-snr, snr"):
        layers.Denoiser(network, weighting="none")


def test_fourier_features():
    torch.manual_seed(0)
    features = K.layers.FourierFeatures(2, 6, std=16.0)
    torch.manual_seed(0)
    weight = torch.randn(3, 2) * 16
    assert torch.equal(features.weight, weight)
    assert list(features.state_dict()) == ["weight"]
    angle = 2 * math.pi * torch.ones(4, 2) @ weight.T
    torch.testing.assert_close(
        features(torch.ones(4, 2)), torch.cat([angle.cos(), angle.sin()], -1)
    )
    with pytest.raises(ValueError, match="must be even"):
        K.layers.FourierFeatures(1, 3)


def test_figures():
    golden = GOLDEN["figures"]
    x, y = (torch.tensor(golden[key], dtype=torch.float64) for key in "xy")
    figures = {
        "fid": K.evaluation.fid(x, y),
        "kid": K.evaluation.kid(x, y),
        "kid, parts": K.evaluation.kid(x, y, max_size=20),
        "squared_mmd": K.evaluation.squared_mmd(x, y),
        "sqrtm_eig": K.evaluation.sqrtm_eig(x.T @ x),
        "polynomial_kernel": K.evaluation.polynomial_kernel(x[:2], y[:3]),
    }
    for key, figure in figures.items():
        tolerance = 1e-7 if key == "fid" else 1e-10  # k-diffusion adds 1e-8 to the diagonal
        expected = torch.tensor(golden[key], dtype=torch.float64)
        torch.testing.assert_close(figure, expected, rtol=tolerance, atol=0)
    assert K.evaluation.fid(x.float(), y.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="at least two rows"):
        K.evaluation.kid(x[:1], y)
    with pytest.raises(ValueError, match="features must be"):
        K.evaluation.fid(x[:1], y)
    with pytest.raises(ValueError, match="square matrix"):
        K.evaluation.sqrtm_eig(x)


class Accelerator:
    num_processes, is_main_process = 1, False

    def gather(self, x):
        return x


def test_compute_features():
    sizes = []

    def sample(n):
        sizes.append(n)
        return torch.full([4, 2], float(len(sizes)))

    features = K.evaluation.compute_features(Accelerator(), sample, lambda x: x + 1, 7, 3)
    assert sizes == [3, 3, 1]
    assert features[:, 0].tolist() == [2, 2, 2, 3, 3, 3, 4]

    def ends(n):
        raise StopIteration

    with pytest.raises(ValueError, match="no samples"):
        K.evaluation.compute_features(Accelerator(), ends, lambda x: x, 7, 3)


def test_inception_looks_at_pictures_of_any_size(monkeypatch):
    seen = []

    class Network(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3)), None

    monkeypatch.setattr(K.evaluation, "load_inception", lambda: (Network(), ""))
    extractor = K.evaluation.InceptionV3FeatureExtractor()
    assert extractor(torch.full([2, 1, 20, 30], 3.0)).shape == (2, 3)
    assert seen[0].shape == (2, 3, 299, 299)
    assert torch.equal(
        seen[0], torch.full_like(seen[0], 127 / 128)
    )  # white, 255, becomes (255 - 128) / 128


def test_pictures():
    for mode, (pixels, tensor) in GOLDEN["pictures"].items():
        array = np.array(pixels, dtype=bool if mode == "1" else np.uint8)
        picture = Image.fromarray(array)
        assert picture.mode == mode
        ours = K.utils.from_pil_image(picture)
        torch.testing.assert_close(ours, torch.tensor(tensor), rtol=0, atol=1e-6)
    ramp = torch.linspace(-1.2, 1.2, 24)
    for channels, mode in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        tensor = ramp.repeat(channels, 1).reshape(channels, 4, 6)
        picture = K.utils.to_pil_image(tensor)
        assert picture.mode == mode
        assert np.asarray(picture).tolist() == GOLDEN["pictures"][mode][0]
        assert K.utils.to_pil_image(tensor[None]) == picture
    assert K.utils.to_pil_image(ramp.reshape(4, 6)).mode == "L"
    for shape in ([2, 3, 4, 4], [5, 4, 4], [4]):
        with pytest.raises(ValueError, match="one picture must be"):
            K.utils.to_pil_image(torch.zeros(shape))
    with pytest.raises(ValueError, match="'I;16' has no range"):
        K.utils.from_pil_image(Image.new("I;16", (4, 4)))


def test_modes_are_restored():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout())
    model[1].eval()
    with K.utils.eval_mode(model) as inside:
        assert inside is model and not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, True, False]
    with pytest.raises(KeyError), K.utils.train_mode(model):
        raise KeyError
    assert [m.training for m in model.modules()] == [True, True, False]
    assert K.utils.n_params(model) == 9


def test_averages():
    for key, settings in (
        ("default", {}),
        ("long", {"power": 2 / 3, "max_value": 0.9999, "start_at": 2}),
    ):
        warmup = K.utils.EMAWarmup(**settings)
        for expected in GOLDEN["averages"][key]:
            assert warmup.get_value() == pytest.approx(expected, abs=1e-15)
            warmup.step()
        other = K.utils.EMAWarmup()
        other.load_state_dict(warmup.state_dict())
        assert other.get_value() == warmup.get_value()
    model, average = (nn.BatchNorm1d(2) for _ in range(2))
    nn.init.constant_(model.weight, 3.0)
    model.running_mean += 5
    K.utils.ema_update(model, average, 0.75)
    assert average.weight.tolist() == [1.5, 1.5] and average.running_mean.tolist() == [5, 5]
    with pytest.raises(ValueError, match="different names"):
        K.utils.ema_update(nn.Linear(2, 2), average, 0.5)
    assert K.utils.ema_update_dict({"a": 1.0}, {"a": 3.0, "b": 7.0}, 0.5) == {"a": 2.0, "b": 7.0}


def test_small_things_of_utils(tmp_path):
    for _ in range(2):
        K.utils.CSVLogger(tmp_path / "log.csv", ["step", "loss"]).write(1, 0.5)
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n1,0.5\n"
    before = torch.backends.cuda.matmul.allow_tf32
    with K.utils.tf32_mode(matmul=not before):
        assert torch.backends.cuda.matmul.allow_tf32 is not before
    assert torch.backends.cuda.matmul.allow_tf32 is before
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", {"config": "x"})
    assert K.utils.get_safetensors_metadata(tmp_path / "a.safetensors") == {"config": "x"}
    pictures = {"image": [Image.new("L", (2, 3))], "label": [1]}
    assert K.utils.hf_datasets_augs_helper(pictures, lambda p: p.mode, "image") == {
        "image": ["RGB"]
    }


def test_linear_multistep_coefficients_are_adams_bashforths():
    t = [4.0, 3.0, 2.0, 1.0, 0.0]
    ours = [K.sampling.linear_multistep_coeff(4, t, 3, j) for j in range(4)]
    assert ours == pytest.approx([-55 / 24, 59 / 24, -37 / 24, 9 / 24], abs=1e-12)
    with pytest.raises(ValueError, match="order 3 needs 3 slopes"):
        K.sampling.linear_multistep_coeff(3, t, 1, 0)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_log_likelihood_of_a_gaussian(dtype):
    """The data are N(m, diag(v)). The Jacobian is diagonal, so any direction of signs is exact. The
    ODE carries x to m + (x - m) r, with r^2 = (v + sigma_max^2) / (v + sigma_min^2)."""
    torch.manual_seed(0)
    mean = torch.tensor([0.5, -1.0, 0.25], dtype=dtype)
    variance = torch.tensor([0.04, 1.0, 0.25], dtype=dtype)

    def model(x, sigma):
        square = sigma[:, None] ** 2
        return (variance * x + square * mean) / (variance + square)

    x = mean + variance.sqrt() * torch.randn(5, 3, dtype=dtype)
    low, high = 0.01, 50.0
    r = ((variance + high**2) / (variance + low**2)).sqrt()
    prior = torch.distributions.Normal(0, high).log_prob(mean + (x - mean) * r)
    exact = (prior + r.log()).sum(1)
    ours, info = K.sampling.log_likelihood(model, x, low, high)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, exact, rtol=0, atol=2e-3)
    fine, more = K.sampling.log_likelihood(model, x, low, high, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(fine, exact, rtol=0, atol=5e-5)
    assert 10 < info["fevals"] < more["fevals"] < 1000
    # At a large sigma_max the prior differs little from the law of the noised data.
    law = torch.distributions.Normal(mean, (variance + low**2).sqrt()).log_prob(x).sum(1)
    far, _ = K.sampling.log_likelihood(model, x, low, 5000.0, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(far, law, rtol=0, atol=1e-3)


def test_log_likelihood_refuses():
    with pytest.raises(ValueError, match="sigma_max < inf must hold"):
        K.sampling.log_likelihood(lambda x, sigma: x, start(), 1.0, 0.5)
    with pytest.raises(NonFiniteError, match="cannot be integrated beyond sigma"):
        K.sampling.log_likelihood(lambda x, sigma: x * torch.nan, start(), 0.1, 0.5)
