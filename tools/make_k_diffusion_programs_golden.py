"""Writes tests/golden/k_diffusion_programs.json: what programs written for k-diffusion rely on,
beyond what tools/make_k_diffusion_compat_golden.py stores. It has the names of its modules,
callbacks that edit, adaptive solvers, distributions, configs, losses and figures.

    git clone https://github.com/crowsonkb/k-diffusion
    pip install torch torchvision einops safetensors scipy tqdm
    K_DIFFUSION_USE_COMPILE=0 python tools/make_k_diffusion_programs_golden.py k-diffusion

Made with its commit 4601bf0, in which sampling.py and utils.py are the same as in 0.1.1.post1.
tests/compat/test_k_diffusion_programs.py holds kdiff.compat against it.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from k_diffusion_callbacks import ADAPTIVE, DTYPES, EDITS, FAST, edited, idle, solved
from make_k_diffusion_compat_golden import CASES, start
from make_k_diffusion_networks_golden import original

OUT = Path(__file__).parents[1] / "tests/golden/k_diffusion_programs.json"
MODULES = (
    "augmentation config evaluation external gns layers models models.axial_rope models.flags "
    "models.flops models.image_transformer_v1 models.image_transformer_v2 models.image_v1 "
    "sampling utils"
)


DENSITIES = {
    "rand_log_normal": [{"loc": -1.2, "scale": 1.2}],
    "rand_log_logistic": [{"loc": -0.7, "scale": 0.5}, {"min_value": 0.1, "max_value": 9.0}],
    "rand_log_uniform": [{"min_value": 0.01, "max_value": 80.0}],
    "rand_v_diffusion": [{"sigma_data": 0.5, "min_value": 0.001, "max_value": 1000.0}, {}],
    "rand_cosine_interpolated": [
        {"image_d": 64, "noise_d_low": 32, "noise_d_high": 64, "sigma_data": 0.5}
    ],
    "rand_split_log_normal": [{"loc": -1.2, "scale_1": 1.0, "scale_2": 0.4}],
}


def drawn(utils, name, settings, dtype, strata):
    torch.manual_seed(1)
    function = getattr(utils, name)
    with utils.enable_stratified(*(strata or (0, 1)), disable=strata is None):
        return function([2, 5], **settings, dtype=dtype).double().tolist()


MODEL = {"type": "image_v1", "input_channels": 3, "input_size": [8, 8], "mapping_out": 8}
MODEL |= {"depths": [1], "channels": [8], "self_attn_depths": [False], "sigma_data": 0.5}
MODEL |= {"sigma_min": 0.01, "sigma_max": 80.0}
V1 = {"type": "image_transformer_v1", "input_channels": 3, "input_size": [8, 8], "depth": 2}
SAMPLE_DENSITIES = [
    {"type": "lognormal", "mean": -1.2, "std": 1.2},
    {"type": "lognormal", "loc": -1.0, "scale": 1.0},
    {"type": "loglogistic"},
    {"type": "loglogistic", "loc": 0.1, "scale": 0.4, "min_value": 0.1, "max_value": 9.0},
    {"type": "loguniform"},
    {"type": "loguniform", "min_value": 0.1, "max_value": 9.0},
    {"type": "v-diffusion"},
    {"type": "cosine", "min_value": 0.01},
    {"type": "split-lognormal", "mean": -1.2, "std_1": 1.0, "std_2": 0.4},
    {"type": "split-lognormal", "loc": -1.2, "scale_1": 1.0, "scale_2": 0.4},
    {"type": "cosine-interpolated"},
    {"type": "cosine-interpolated", "noise_d_low": 4, "noise_d_high": 16, "image_d": 8},
]


def configs(config, folder):
    files = {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("configs/*.json"))}
    files["v1"] = {"model": {**V1, "width": 96, "sigma_data": 1.0}}
    files["dropout"] = {
        "model": {**files["config_mnist_transformer"]["model"], "dropout_rate": 0.1}
    }
    return [{"given": given, "loaded": config.load_config(given)} for given in files.values()]


def densities(config):
    golden = []
    for given in SAMPLE_DENSITIES:
        made = config.make_sample_density({**MODEL, "sigma_sample_density": given})
        golden.append([given, made.func.__name__, {**made.keywords}])
    return golden


def losses(layers):
    def network(x, sigma, return_variance=False):
        output = (x + sigma[:, None] / 3).sin()
        return (output, x.mean(1) / 9) if return_variance else output

    x, sigma = start(torch.float64), torch.tensor([0.7, 0.033], dtype=torch.float64)
    wrappers = {
        "soft-min-snr": layers.Denoiser(network, 0.5, "soft-min-snr"),
        "snr": layers.Denoiser(network, 0.5, "snr"),
        "variance": layers.DenoiserWithVariance(network, 0.5),
        "simple": layers.SimpleLossDenoiser(network, 0.5),
    }
    return {key: w.loss(x, x.cos(), sigma).tolist() for key, w in wrappers.items()}


def figures(evaluation):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (40, 50))
    y = 1.3 * y + 0.2
    square = x.T @ x
    return {
        "x": x.tolist(),
        "y": y.tolist(),
        "fid": evaluation.fid(x, y).item(),
        "kid": evaluation.kid(x, y).item(),
        "kid, parts": evaluation.kid(x, y, max_size=20).item(),
        "squared_mmd": evaluation.squared_mmd(x, y).item(),
        "sqrtm_eig": evaluation.sqrtm_eig(square).tolist(),
        "polynomial_kernel": evaluation.polynomial_kernel(x[:2], y[:3]).tolist(),
    }


def pictures(utils):
    ramp = torch.linspace(-1.2, 1.2, 2 * 3 * 4)
    golden = {}
    for channels in (1, 3, 4):
        pil = utils.to_pil_image(ramp.repeat(channels, 1).reshape(channels, 4, 6))
        back = utils.from_pil_image(pil)
        golden[pil.mode] = [np.asarray(pil).tolist(), back.tolist()]
    for mode in ("1", "LA"):
        pil = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10).convert(mode)
        golden[mode] = [np.asarray(pil).astype(int).tolist(), utils.from_pil_image(pil).tolist()]
    return golden


def averages(utils):
    warmups = {"default": {}, "long": {"power": 2 / 3, "max_value": 0.9999, "start_at": 2}}
    golden = {}
    for key, settings in warmups.items():
        warmup = utils.EMAWarmup(**settings)
        golden[key] = []
        for _ in range(6):
            golden[key].append(warmup.get_value())
            warmup.step()
    return golden


def names(file):
    """What a module defines, or takes from the package for others to find there."""
    found = {"tqdm", "trange"} if file.stem == "sampling" else set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and node.level:
            found |= {alias.name for alias in node.names if file.stem == "__init__"}
    return sorted(name for name in found if not name.startswith("_"))


def all_names(folder):
    golden = {}
    for module in ("", *MODULES.split()):
        path = folder / "k_diffusion" / module.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        golden[module] = names(file)
    return golden


def evaluation_of(package):
    for stub in ("cleanfid", "cleanfid.inception_torchscript", "clip"):
        sys.modules[stub] = types.ModuleType(stub)
    sys.modules["cleanfid.inception_torchscript"].InceptionV3W = None
    return importlib.import_module(f"{package.__name__}.evaluation")


def main() -> None:
    folder = Path(sys.argv[1])
    package = original(folder)
    sampling, utils, config = package.sampling, package.utils, package.config
    golden = {
        "names": all_names(folder),
        "edits": [
            {"name": name, "options": options, "edit": edit, "dtype": key, "result": result}
            for name, variants in CASES.items()
            for options in variants
            for edit in EDITS
            for key, dtype in DTYPES.items()
            if key == "float64" or edit == "mask"
            for result in [edited(sampling, name, options, edit, dtype)]
        ],
        "idle": [
            [name, last, idle(sampling, name, last)]
            for name in CASES
            if name.endswith("ancestral")
            for last in ("zero", "sigma_min")
        ],
        "solvers": [
            {"name": name, "options": options, "edit": edit, "dtype": key, **result}
            for name, variants in (("sample_dpm_fast", FAST), ("sample_dpm_adaptive", ADAPTIVE))
            for options in variants
            for edit in ("", *EDITS)
            if not edit or options in ({"n": 5}, {"n": 6}, {}, {"order": 2})
            for key, dtype in DTYPES.items()
            # The PID controller's steps hang on errors near 0, which float32 rounds away.
            if key == "float64" or not (edit or "pcoeff" in options)
            for result in [solved(sampling, name, options, edit, dtype)]
        ],
        "draws": [
            {"name": name, "settings": settings, "dtype": key, "strata": strata, "values": values}
            for name, variants in DENSITIES.items()
            for settings in variants
            for key, dtype in DTYPES.items()
            for strata in (None, [1, 3])
            for values in [drawn(utils, name, settings, dtype, strata)]
        ],
        "configs": configs(config, folder),
        "densities": densities(config),
        "losses": losses(package.layers),
        "figures": figures(evaluation_of(package)),
        "pictures": pictures(utils),
        "averages": averages(utils),
    }
    text = json.dumps(golden)
    for key in ('{"name"', '{"given"', '"configs"', '"densities"', '"figures"', '"names"'):
        text = text.replace(key, "\n" + key)
    OUT.write_text(text + "\n")
    print(f"{OUT.stat().st_size} bytes in {OUT}")


if __name__ == "__main__":
    main()
