#!/usr/bin/env python3
"""Runs tiny seeded models with Hugging Face transformers, all in float64, and
writes what they give: transformers.json (configurations and tokens) and
transformers.f32 (their logits, (tokens, vocab) each, little-endian float32).

    pip install torch transformers
    python3 internal/ref/testdata/tiny_models.py
    go test -v -run Transformers ./internal/ref

Weights come from an integer generator that transformers_test.go has too, so
that none are stored.
"""
import hashlib
import json
import pathlib

import numpy as np
import torch
import transformers

# transformers computes norms, softmax, RoPE and routers in float32 whatever the
# model's type: here, float32 is another name for float64 while it runs.
FLOAT32 = torch.float32
torch.set_default_dtype(torch.float64)
torch.float32 = torch.float = torch.float64
torch.Tensor.float = torch.Tensor.double

TOKENS = 80  # more than a page of 64

BASE = dict(
    vocab_size=48, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    rms_norm_eps=1e-5, rope_theta=10000.0,
)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
MODELS = [
    ("llama-mha", "llama", dict(num_key_value_heads=4)),
    ("llama-gqa", "llama", dict()),
    ("llama-mqa", "llama", dict(num_key_value_heads=1)),
    ("llama-head-dim", "llama", dict(head_dim=24)),
    ("llama-bias", "llama", dict(attention_bias=True)),
    ("llama-tied", "llama", dict(tie_word_embeddings=True)),
    ("llama-rope-base", "llama", dict(rope_theta=500000.0)),
    ("llama-linear", "llama", dict(rope_scaling=dict(rope_type="linear", factor=4.0))),
    ("llama-yarn", "llama", dict(rope_scaling=YARN)),
    ("llama-yarn-betas", "llama", dict(rope_scaling=dict(YARN, beta_fast=2.0, beta_slow=0.25, attention_factor=1.3))),
    ("llama-llama3", "llama", dict(rope_scaling=LLAMA3)),
    ("mistral-window", "mistral", dict(sliding_window=9)),
    ("mistral-wide-window", "mistral", dict(sliding_window=65)),
    ("qwen2", "qwen2", dict(rope_theta=1000000.0)),
    ("qwen2-tied", "qwen2", dict(tie_word_embeddings=True, num_key_value_heads=4)),
    ("mixtral-2-of-4", "mixtral", dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None)),
    ("mixtral-3-of-8", "mixtral", dict(num_local_experts=8, num_experts_per_tok=3, sliding_window=17)),
]
CLASSES = dict(
    llama=(transformers.LlamaConfig, transformers.LlamaForCausalLM),
    mistral=(transformers.MistralConfig, transformers.MistralForCausalLM),
    qwen2=(transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    mixtral=(transformers.MixtralConfig, transformers.MixtralForCausalLM),
)


def splitmix(seed, n):
    """n values of splitmix64 (Steele, Lea and Flood 2014), uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def seed_of(name):
    """The 64-bit FNV-1a hash of a name."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def weights(model, name, shape):
    """Uniform float32 weights: norms around 1, biases within 0.5, matrices of
    variance 1/columns, queries and keys twice that deviation."""
    n = int(np.prod(shape))
    u = (splitmix(seed_of(model + "/" + name), n) >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    if "norm" in name:
        w = 1 + 0.25 * u
    elif name.endswith("bias"):
        w = 0.5 * u
    else:
        scale = np.sqrt(3.0 / shape[-1])
        if "q_proj" in name or "k_proj" in name:
            scale *= 2
        w = scale * u
    return w.astype(np.float32).astype(np.float64).reshape(shape)


def run(name, arch, changes):
    """The model's configuration as a dict, its tokens, and its logits."""
    settings = dict(BASE, **changes)
    config_class, model_class = CLASSES[arch]
    if "tie_word_embeddings" not in settings:
        settings["tie_word_embeddings"] = False
    config = config_class(**settings, attn_implementation="eager", experts_implementation="eager")
    if arch == "qwen2":
        assert not config.use_sliding_window
    model = model_class(config).eval().double()
    for key, parameter in model.named_parameters():
        assert parameter.dtype == torch.float64
        parameter.data = torch.from_numpy(weights(name, key, tuple(parameter.shape)))
    tokens = (splitmix(seed_of(name + "/tokens"), TOKENS) % np.uint64(settings["vocab_size"])).astype(np.int64)
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens)[None]).logits[0]
    assert logits.dtype == torch.float64
    return settings, tokens.tolist(), logits.numpy().astype("<f4")


def main():
    here = pathlib.Path(__file__).parent
    models, data = [], b""
    for name, arch, changes in MODELS:
        settings, tokens, logits = run(name, arch, changes)
        print(f"{name:24} logits of deviation {logits.std():.3f}")
        models.append(dict(name=name, arch=arch, config=settings, tokens=tokens))
        data += logits.tobytes()
    file = dict(transformers=transformers.__version__, torch=torch.__version__.split("+")[0],
                sha256=hashlib.sha256(data).hexdigest(), models=models)
    (here / "transformers.f32").write_bytes(data)
    text = json.dumps(file, indent=1)
    (here / "transformers.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
