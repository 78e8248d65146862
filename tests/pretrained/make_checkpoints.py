"""Makes small random models with transformers, in a process of its own, and says what they compute.

Run as `python make_checkpoints.py folder`. Each model's folder gets an `expected.npz`: tokens, the
logits there, and a prompt with the 50 tokens that greedy generation adds to it.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "eos_token_id": None}
HEADS = {"num_attention_heads": 4, "intermediate_size": 24}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS = {
    "llama": ("Llama", {**HEADS, "num_key_value_heads": 2, "rope_parameters": LLAMA_3}),
    "llama_biases": (
        "Llama",
        {
            **HEADS,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "hidden_act": "gelu",
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50.0},
        },
    ),
    "mistral": (
        "Mistral",
        {**HEADS, "num_key_value_heads": 1, "sliding_window": 5, "head_dim": 6},
    ),
    "mixtral": (
        "Mixtral",
        {**HEADS, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "mamba2": (
        "Mamba2",
        {"num_heads": 4, "head_dim": 8, "n_groups": 2, "state_size": 6, "chunk_size": 8},
    ),
    "recurrent_gemma": (
        "RecurrentGemma",
        {
            **HEADS,
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "attention_window_size": 5,
            "intermediate_size": 48,
            "logits_soft_cap": 3.0,
        },
    ),
    "qwen3_next": (
        "Qwen3Next",
        {
            **HEADS,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "attention_bias": True,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 4,
            "linear_value_head_dim": 6,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 12,
            "mlp_only_layers": [1],
        },
    ),
    "mamba": ("Mamba", {"state_size": 4, "use_bias": True}),
    "rwkv": (
        "Rwkv",
        {"num_hidden_layers": 3, "rescale_every": 2, "layer_norm_epsilon": 1e-6},
    ),
}
SHARDED = {"llama_biases"}
KEPT = ("A_log", "recurrent_param")


def make(name, folder):
    """Saves one model and what it computes."""
    family, options = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if not key.endswith(KEPT):
                weight.add_(torch.randn_like(weight) * 0.3)
        if config.tie_word_embeddings:  # Else the likeliest token is the last one, again and again.
            model.get_input_embeddings().weight.mul_(0.1)
    size = {"max_shard_size": "4KB"} if name in SHARDED else {}
    model.save_pretrained(folder / name, **size)
    np.savez(folder / name / "expected.npz", **computed(model))


def computed(model):
    """Tokens and logits, and a prompt with 50 more tokens."""
    tokens = np.random.default_rng(1).integers(1, model.config.vocab_size, (2, 12))
    with torch.no_grad():
        logits = model(torch.tensor(tokens), use_cache=False).logits
        prompt = torch.tensor(tokens[:1, :7])
        greedy = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=50,
            do_sample=False,
            pad_token_id=0,
        )
    return {"tokens": tokens, "logits": logits.numpy(), "greedy": greedy[0].numpy()}


def main(folder):
    """Makes all of them, and one of them in two bytes a number."""
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    for name in MODELS:
        make(name, folder)
    load = transformers.AutoModelForCausalLM.from_pretrained
    for dtype in ("bfloat16", "float16"):
        load(folder / "llama", dtype=getattr(torch, dtype)).save_pretrained(folder / dtype)
        model = load(folder / dtype, dtype=torch.float32)
        np.savez(folder / dtype / "expected.npz", **computed(model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
