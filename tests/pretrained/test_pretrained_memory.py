"""Loading takes little more memory than the checkpoint has bytes: each run in its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says it"),
]


def write_llama(folder, width, layers, dtype):
    """A Llama of zeros, in shards of one layer each."""
    from safetensors.numpy import save_file

    folder.mkdir()
    hidden = 3 * width
    shapes = {
        **{f"self_attn.{name}_proj": (width, width) for name in "qkvo"},
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    places = {}

    def save(file, named):
        zeros = {f"{name}.weight": np.zeros(shape, dtype) for name, shape in named.items()}
        save_file(zeros, folder / file)
        places.update(dict.fromkeys(zeros, file))

    save("outer.safetensors", {"model.embed_tokens": (1000, width), "model.norm": (width,)})
    for i in range(layers):
        layer = {f"model.layers.{i}.{name}": shape for name, shape in shapes.items()}
        save(f"layer{i}.safetensors", layer)
    config = {
        "model_type": "llama",
        "vocab_size": 1000,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    index = {"weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def written(request, tmp_path_factory):
    """A small and a large checkpoint, and their dtype."""
    import ml_dtypes

    dtype = np.dtype(ml_dtypes.bfloat16 if request.param == "bfloat16" else request.param)
    folder = tmp_path_factory.mktemp(request.param)
    write_llama(folder / "small", 64, 2, dtype)
    write_llama(folder / "large", 512, 12 if dtype.itemsize == 4 else 24, dtype)
    return folder, request.param


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_peak_while_loading(library, written):
    worker = Path(__file__).with_name("memory_worker.py")
    # glibc gives freed memory back at once, so that what is measured is what is held.
    environment = {**os.environ, "KERAS_BACKEND": library, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, worker, *map(str, written)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    size, ratio = run.stdout.split()
    assert int(size) > 150_000_000
    print(f"{library}, {written[1]}: {ratio} of {size} bytes")
    assert float(ratio) < 1.3
