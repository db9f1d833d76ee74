"""Text encoders in folders: which files are read, and what is refused in one line."""

import json
import shutil
import socket
import sys

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import kdiff
import text_pipelines
from diffusers_networks import make_condition, rewrite
from kdiff.text import encoders

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
PROMPT = "a red cat"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    text_pipelines.stable_diffusion(folder).save_pretrained(folder / "sd")
    return folder / "sd"


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "sd")


@pytest.fixture(scope="module")
def expected(whole):
    return embedding(whole)


def embedding(folder, **told):
    (row,) = kdiff.load(folder, **told).encode(PROMPT)["encoder_hidden_states"]
    return row


def as_bin(folder):
    file = folder / "text_encoder/model.safetensors"
    torch.save(load_file(file), folder / "text_encoder/pytorch_model.bin")
    file.unlink()


def in_shards(folder):
    file = folder / "text_encoder/model.safetensors"
    tensors = load_file(file)
    file.unlink()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {key: names[i % 2] for i, key in enumerate(tensors)}
    for name in names:
        part = {key: value for key, value in tensors.items() if weight_map[key] == name}
        save_file(part, file.with_name(name))
    index = file.with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": weight_map}))


def with_older_names(folder):
    """As transformers 4 wrote them, with a buffer that it has no more."""
    file = folder / "text_encoder/model.safetensors"
    named = {f"text_model.{key}": value for key, value in load_file(file).items()}
    positions = torch.arange(text_pipelines.TOKENS)[None]
    save_file({**named, "text_model.embeddings.position_ids": positions}, file)


@pytest.mark.parametrize("change", [as_bin, in_shards, with_older_names])
def test_weights_in_other_forms(change, copy, expected):
    change(copy)
    assert torch.equal(embedding(copy), expected)


def test_variants(whole, copy, expected):
    diffusers.DiffusionPipeline.from_pretrained(whole).to(torch.float16).save_pretrained(
        copy, variant="fp16"
    )
    for file in copy.rglob("*model.safetensors"):
        file.unlink()
    found = embedding(copy, variant="fp16")
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    with pytest.raises(ValueError, match="give variant"):
        kdiff.load(copy)


def test_no_network_and_no_code(copy, expected, monkeypatch):
    """What a file names is neither fetched nor imported."""

    def trap(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", trap)
    monkeypatch.setattr(socket.socket, "connect", trap)
    code = {"auto_map": {"AutoModel": "evil/evil--evil.Evil", "AutoTokenizer": "evil.Evil"}}
    rewrite(copy / "text_encoder/config.json", attn_implementation="evil/kernel", **code)
    rewrite(copy / "tokenizer/tokenizer_config.json", tokenizer_class="Evil", **code)
    (copy / "text_encoder/adapter_config.json").write_text('{"base_model_name_or_path": "evil"}')
    (copy / "tokenizer/evil.py").write_text("raise AssertionError")
    assert torch.equal(embedding(copy), expected)
    assert not any("evil" in name for name in sys.modules)


def test_a_prompt_is_encoded_once(whole, monkeypatch):
    model, seen = kdiff.load(whole), []
    call = encoders.Encoder.__call__
    monkeypatch.setattr(
        encoders.Encoder, "__call__", lambda self, texts: seen.append(texts) or call(self, texts)
    )
    told = model.encode(["cat", "dog", "cat"], ["blurry", "", "blurry"])
    assert seen == [["cat", "dog", "blurry", ""]]
    first, second, third = told["encoder_hidden_states"]
    assert first is not second and torch.equal(first, third)
    assert torch.equal(
        told["negative_encoder_hidden_states"][1], told["null_encoder_hidden_states"][0]
    )


def test_a_prompt_that_is_too_long(whole):
    with pytest.warns(UserWarning, match="longer than the 16 tokens .* leaves out 'blue dog"):
        kdiff.load(whole).encode(" ".join(["red"] * 14 + ["blue", "dog"]))


WITHOUT = {
    "its network is not of a layout that kdiff knows": lambda p: make_condition(
        cross_attention_dim=text_pipelines.WIDTH, time_cond_proj_dim=4
    ).save_pretrained(p / "unet"),
    "model_index.json names no text_encoder": lambda p: rewrite(
        p / "model_index.json", text_encoder=[None, None]
    ),
    "the folder has no text_encoder": lambda p: shutil.rmtree(p / "text_encoder"),
    "the folder has no tokenizer": lambda p: shutil.rmtree(p / "tokenizer"),
    "its text_encoder is a ChatGLMModel, where kdiff reads a CLIPTextModel": lambda p: rewrite(
        p / "model_index.json", text_encoder=["kolors", "ChatGLMModel"]
    ),
    "its tokenizer is a GPT2Tokenizer, which is not supported": lambda p: rewrite(
        p / "model_index.json", tokenizer=["transformers", "GPT2Tokenizer"]
    ),
}


@pytest.mark.parametrize("why", WITHOUT)
def test_folders_that_take_no_prompts(why, copy):
    """They are models of embeddings still."""
    WITHOUT[why](copy)
    model = kdiff.load(copy)
    assert not model.takes_prompts
    with pytest.raises(ValueError, match=f"takes no prompts: {why}"):
        model.encode(PROMPT)
    cond = {"encoder_hidden_states": torch.zeros(1, 5, text_pipelines.WIDTH)}
    assert kdiff.sample(model, "euler", steps=1, cond=cond).shape == (1, 4, 8, 8)


def damaged(folder):
    file = folder / "text_encoder/model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def hostile(folder):
    class Hostile:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    (folder / "text_encoder/model.safetensors").unlink()
    torch.save({"a": Hostile()}, folder / "text_encoder/pytorch_model.bin")


def config(**changes):
    return lambda folder: rewrite(folder / "text_encoder/config.json", **changes)


def tokenizer(**changes):
    return lambda folder: rewrite(folder / "tokenizer/tokenizer_config.json", **changes)


BROKEN = {
    "not a whole safetensors file": damaged,
    "tensors alone": hostile,
    "no model.safetensors or .bin": lambda p: (p / "text_encoder/model.safetensors").unlink(),
    "no config.json": lambda p: (p / "text_encoder/config.json").unlink(),
    "quantized weights": config(quantization_config={"a": 1}),
    "describes a network of": config(vocab_size=10**8),
    "num_hidden_layers is": config(num_hidden_layers=10**6),
    "weights and config.json do not fit": config(hidden_size=24),
    "do not fit: .*nonsense": config(hidden_act="nonsense"),
    "has no vocabulary": lambda p: [file.unlink() for file in (p / "tokenizer").iterdir()],
    "names a vocab_file": tokenizer(vocab_file="/etc/passwd"),
    "extra_ids must be a whole number": tokenizer(extra_ids=10**9),
    "model_max_length, .* at most 16": tokenizer(model_max_length=10**9),
    "tokenizer: ": lambda p: (p / "tokenizer/tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_encoders(message, copy):
    BROKEN[message](copy)
    model = kdiff.load(copy)
    with pytest.raises(ValueError, match=message) as caught:
        model.encode(PROMPT)
    assert "\n" not in str(caught.value)
    assert not (copy / "ran").exists()


def test_without_transformers(whole, monkeypatch):
    model = kdiff.load(whole)
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need transformers: pip install 'kdiff\[text\]'"):
        model.encode(PROMPT)


def test_the_hash_of_the_encoders(whole, copy):
    """It changes with what is read for prompts; the model's own does not."""
    models = kdiff.load(whole), kdiff.load(copy)
    assert models[0].texts.sha256() == models[1].texts.sha256()
    (copy / "tokenizer/README.md").write_text("not read")
    assert models[0].texts.sha256() == models[1].texts.sha256()
    rewrite(copy / "tokenizer/tokenizer_config.json", model_max_length=8)
    assert models[0].texts.sha256() != models[1].texts.sha256()
    assert models[0].record()["sha256"] == models[1].record()["sha256"]


def test_sizes(whole):
    model = kdiff.load(whole)
    assert model.size == (16, 16) and model.resized(height=24).size == (16, 24)
    for side, nearest in ((17, "16 or 18"), (2**17 + 1, "131072")):
        with pytest.raises(ValueError, match=f"width must be a multiple of 2.*: take {nearest}$"):
            model.resized(width=side)
    with pytest.raises(ValueError, match="height must be a whole number, at least 2"):
        model.resized(height=-8)


def test_a_worse_model_makes_pictures_of_the_same_size(whole):
    """Its own size counts as little as the other's."""
    model = kdiff.load(whole).resized(height=24)
    worse = kdiff.load(whole)
    guided = kdiff.guide(model, "autoguidance", model=worse, scale=2.0)
    found = kdiff.sample(guided, "euler", steps=1, prompt="cat")
    assert torch.equal(found, kdiff.sample(model, "euler", steps=1, prompt="cat"))
    assert worse.size == (16, 16)
