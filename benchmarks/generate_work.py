"""The workers of `benchmarks.generate`."""

import copy
import time

from benchmarks.common import TOLERANCE, difference, summary

PROMPT = 16
CHECKED = 16
"""Prompts that logits are compared on: of a deep model, rounding is another draw for each."""


def _theirs(job):
    """transformers' model, of weights that a seed decides, and a prompt."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    width, blocks, vocab_size = job["size"]
    sizes = {"vocab_size": vocab_size, "hidden_size": width, "tie_word_embeddings": True}
    tokens = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    if job["model"] == "mamba":
        config = transformers.MambaConfig(
            **sizes, **tokens, num_hidden_layers=blocks, layer_norm_epsilon=1e-6
        )
        model = transformers.MambaForCausalLM(config)
    else:
        config = transformers.LlamaConfig(
            **sizes,
            **tokens,
            num_hidden_layers=blocks // 2,
            num_attention_heads=width // 64,
            intermediate_size=8 * width // 3,
            rms_norm_eps=1e-6,
        )
        model = transformers.LlamaForCausalLM(config)
    prompt = torch.randint(1, vocab_size, (1, PROMPT))
    return model.eval(), prompt


def _generate(model, prompt, new):
    import torch

    with torch.no_grad():
        return model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
        )[0].numpy()


def _rates(job, generate):
    """Tokens a second, after a first call."""
    generate()
    rates = []
    for _ in range(job["repeats"]):
        start = time.perf_counter()
        generate()
        rates.append(job["new"] / (time.perf_counter() - start))
    return summary(rates)


def peer(job):
    """transformers, on PyTorch and with its own cache."""
    model, prompt = _theirs(job)
    count = sum(parameter.numel() for parameter in model.parameters())
    return {**_rates(job, lambda: _generate(model, prompt, job["new"])), "parameters": count}


def ours(job):
    """Our model with the weights of transformers', after a check."""
    import numpy as np
    import torch

    theirs, prompt = _theirs(job)
    checked = torch.randint(1, job["size"][2], (CHECKED, PROMPT))
    with torch.no_grad():
        logits = theirs(checked).logits.numpy()
        exact = copy.deepcopy(theirs).double()(checked).logits.numpy()
    expected = _generate(theirs, prompt, job["new"])
    model = _converted(theirs, job)
    del theirs
    tokens = prompt[0].numpy().astype("int32")
    from ember_keras import backend

    def off(found):
        return float(np.mean([difference(a, b) for a, b in zip(found, exact, strict=True)]))

    # Rounding grows with depth: ours may be as far from float64 as theirs, and half as far again.
    own, their = off(backend.to_numpy(model(checked.numpy().astype("int32")))), off(logits)
    allowed = max(TOLERANCE, 1.5 * their)
    if not own <= allowed:
        return {"error": f"logits are {own:.1e} of the scale off float64, expected {allowed:.1e}"}

    def generate():
        return model.generate(tokens, max_new_tokens=job["new"], temperature=0.0)

    found = generate()
    if not np.array_equal(found, expected):
        at = int(np.argmax(found != expected)) - PROMPT
        return {"error": f"the new token {at} is another"}
    return {
        **_rates(job, generate),
        "check": f"{job['new']} tokens equal, logits {own:.0e} off float64, theirs {their:.0e}",
    }


def _converted(theirs, job):
    import numpy as np

    import ember_keras as ek

    width, _, vocab_size = job["size"]

    def array(tensor):
        return tensor.detach().numpy()

    convert = ek.interop.transformers
    inner = theirs.backbone if job["model"] == "mamba" else theirs.model
    parts, norms = [], []
    for layer in inner.layers:
        if job["model"] == "mamba":
            parts.append(convert.mamba(layer.mixer))
            norms.append(layer.norm)
            continue
        parts.append(convert.attention(layer.self_attn))
        mlp = ek.layers.GatedMLP(hidden_dim=layer.mlp.gate_proj.out_features)
        mlp.build((None, None, width))
        gate, up = array(layer.mlp.gate_proj.weight), array(layer.mlp.up_proj.weight)
        mlp.gate_up.kernel.assign(np.concatenate([gate, up]).T)
        mlp.down.kernel.assign(array(layer.mlp.down_proj.weight).T)
        parts.append(mlp)
        norms += [layer.input_layernorm, layer.post_attention_layernorm]
    kinds = ("sequence_mixers", "channel_mixers")
    blocks = [ek.registry.part_config(part, kinds) for part in parts]
    model = ek.models.CausalLM(vocab_size, width, blocks)
    model.build((None, None))
    for block, part, norm in zip(model.backbone.stack, parts, norms, strict=True):
        for variable, value in zip(block.mixer.weights, part.weights, strict=True):
            variable.assign(value)
        block.norm.scale.assign(array(norm.weight))
    # Ours multiplies embeddings by sqrt(D), and its head has the same weights.
    table = inner.embeddings if job["model"] == "mamba" else inner.embed_tokens
    final = inner.norm_f if job["model"] == "mamba" else inner.norm
    model.embedding.embeddings.assign(array(table.weight) / width**0.5)
    model.backbone.final_norm.scale.assign(array(final.weight) * width**0.5)
    return model


def positions(job):
    """The time of a step of a model after so many positions, in one sequence."""
    import numpy as np

    import ember_keras as ek
    from ember_keras.models.stepping import runner_of

    model = ek.models.CausalLM(256, 256, [job["mixer"]], repeats=8)
    model.build((None, None))
    runner, at, found = runner_of(model), 0, {}
    state, weights = runner.state(1, max(job["at"])), runner.weights()
    rng, token = np.random.default_rng(0), np.zeros(1, "int32")
    for position in job["at"]:
        steps = 8 * job["repeats"]
        prompt = rng.integers(0, 256, position - steps - at).astype("int32")
        _, state = runner.read([prompt], state)
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            logits, state = runner.step(weights, token, state)
            times.append(time.perf_counter() - start)
            if not np.isfinite(logits).all():
                return {"error": "the logits are not finite"}
        found[str(position)] = summary(times[8:])
        at = position
    return {"at": found}
