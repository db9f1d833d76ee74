"""What a network is given, and what becomes of its output."""

import pytest
import torch
from torch import nn

import kdiff
from exact_models import relative


class Recorder(nn.Module):
    """A 1x1 convolution that keeps what it was given."""

    def __init__(self, channels_out: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels_out, 1)

    def forward(self, x, c_noise, class_labels=None):
        self.given = x, c_noise, class_labels
        return self.conv(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_keeps_its_dtype_and_the_solver_its_own(dtype):
    full, network = Recorder(), Recorder()
    model = kdiff.Denoiser(network, "eps", shape=(3, 4, 4)).to(dtype=dtype)
    reference = kdiff.Denoiser(full, "eps", shape=(3, 4, 4))
    assert model.dtype is dtype
    x = kdiff.sample(model, "dpmpp_2m", steps=5, schedule="trailing", n=2)
    assert x.dtype is torch.float32
    assert network.given[0].dtype is dtype
    assert network.given[1].dtype is torch.promote_types(dtype, torch.float32)
    expected = kdiff.sample(reference, "dpmpp_2m", steps=5, schedule="trailing", n=2)
    assert relative(x, expected) < 64 * max(torch.finfo(dtype).eps, 1e-7)


def test_bfloat16_tells_all_timesteps_apart():
    network = Recorder()
    model = kdiff.Denoiser(network, "eps", shape=(3, 1, 1)).to(dtype=torch.bfloat16)
    seen = set()
    for sigma in model.sigmas:
        model(torch.zeros(1, 3, 1, 1), sigma)
        seen.add(network.given[1].item())
    assert len(seen) == 1000


def test_a_network_without_parameters_gets_the_dtype_of_x():
    for dtype in (torch.float16, torch.float64):
        given = []
        model = kdiff.Denoiser(lambda x, c, g=given: g.append(x.dtype) or x, "edm", shape=(1,))
        assert model(torch.ones(1, 1, dtype=dtype), 1.0).dtype is dtype
        assert given == [dtype]
        assert (model.dtype, model.device.type) == (None, "cpu")


def test_a_learned_variance_is_dropped():
    network, plain = Recorder(6), Recorder(3)
    plain.conv.weight.data, plain.conv.bias.data = (
        p.data[:3].clone() for p in network.parameters()
    )
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    both = [
        kdiff.Denoiser(n, "eps", shape=(3, 4, 4), learned_variance=learned)(x, 3.0)
        for n, learned in ((network, True), (plain, False))
    ]
    torch.testing.assert_close(*both)


def twice(channels=6):
    return lambda x, c: torch.cat([x, x + 1], dim=1)[:, :channels]


def test_a_learned_variance_is_never_guessed():
    """It is what was said; where nothing was said, it is what the first answer showed."""
    x = torch.ones(2, 3, 2, 2)

    def model(answers, learned):
        return kdiff.Denoiser(answers, "edm", shape=(3, 2, 2), learned_variance=learned)

    for answers, learned, said in (
        (
            twice(),
            False,
            "not \\(2, 6, 2, 2\\); if half of that is a learned variance, say",
        ),
        (twice(3), True, "must answer with \\(2, 6, 2, 2\\), not \\(2, 3, 2, 2\\)$"),
        (twice(5), None, "must answer with \\(2, 3, 2, 2\\), not \\(2, 5, 2, 2\\)$"),
    ):
        with pytest.raises(ValueError, match=said):
            model(answers, learned)(x, 1.0)
    with pytest.raises(ValueError, match="learned_variance must be True, False or None, not 'yes'"):
        model(twice(), "yes")
    for channels, other in ((6, 3), (3, 6)):
        network = [twice(channels)]
        undecided = model(lambda x, c, n=network: n[0](x, c), None)
        first = undecided(x, 1.0)
        assert undecided.learned_variance is (channels == 6)
        assert torch.equal(first, undecided(x, 1.0))
        network[0] = twice(other)  # the first answer has decided
        with pytest.raises(ValueError, match="the network must answer with"):
            undecided(x, 1.0)
    assert model(twice(), None).replace(learned_variance=True).learned_variance is True


def test_scalars_have_no_learned_variance():
    with pytest.raises(ValueError, match="no channels, and so no learned variance"):
        kdiff.Denoiser(lambda x, c: x, "edm", shape=(), learned_variance=True)
    undecided = kdiff.Denoiser(lambda x, c: x, "edm", shape=(), learned_variance=None)
    assert undecided(torch.ones(3), 1.0).shape == (3,) and undecided.learned_variance is False


def test_c_noise_and_conditions_have_one_row_a_sample():
    network = Recorder()
    model = kdiff.Denoiser(network, "flow", shape=(3, 2, 2))
    labels = torch.tensor([1, -1])
    model(torch.ones(2, 3, 2, 2), 1.0, class_labels=labels)
    x, c_noise, given = network.given
    assert torch.equal(x, torch.full((2, 3, 2, 2), 0.5))
    assert torch.equal(c_noise, torch.tensor([0.5, 0.5]))
    assert given is labels


def test_the_range_may_be_narrowed():
    model = kdiff.Denoiser(Recorder(), "edm", shape=(3, 2, 2), sigma_min=0.01, sigma_max=50)
    assert (model.sigma_min, model.sigma_max) == (0.01, 50)
    assert kdiff.plan(model, steps=2).sigmas == [50, 0.01, 0]
