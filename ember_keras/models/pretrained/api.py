"""Reading and writing the folders that Hugging Face transformers reads and writes."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ember_keras import backend
from ember_keras.config.shown import shown
from ember_keras.models.causal_lm import CausalLM
from ember_keras.models.pretrained import checkpoint as tensors
from ember_keras.models.pretrained.describing import describe, first_difference
from ember_keras.models.pretrained.families import FAMILIES, Family
from ember_keras.models.pretrained.folder import Folder, needs
from ember_keras.models.pretrained.keys import KeyProblem, Number, read_keys
from ember_keras.models.pretrained.places import compare, fill, places
from ember_keras.models.sampling import is_whole
from ember_keras.models.saving.errors import LoadError
from ember_keras.models.saving.files import DEFAULT_MAX_BYTES
from ember_keras.models.saving.writing import explain, hidden, sync, sync_folder

PathLike = str | os.PathLike[str]
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
MAX_TOKENIZER_BYTES = 128 << 20
_DTYPES = ("float32", "float16", "bfloat16")


def from_pretrained(
    folder: PathLike,
    *,
    dtype: Any = None,
    follow_links: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> CausalLM:
    """Reads a Hugging Face folder of safetensors as a `CausalLM`.

    The families are those of [the guide](../pretrained.md). What the configuration asks for and no
    layer here computes is refused by its key, as are tensors that are missing, left over or of
    another shape. Nothing is fetched, no code of the folder runs, and pickles are never opened. The
    tensors are read some rows at a time into the memory of their variables, so that no second copy
    of the model is made.

    Args:
        folder: str or path-like. The folder with `config.json` and `*.safetensors`.
        dtype: str, a dtype policy of Keras, or None for the global one. `"bfloat16"` keeps the
            weights in two bytes each.
        follow_links: bool. Whether the files may be links, as in the cache of Hugging Face.
        max_bytes: int. The most bytes that the safetensors may have together.

    Returns:
        A built `CausalLM` of ordinary blocks: it trains, generates, and is saved as `.keras`.

    Example:

    ```python
    import ember_keras as ek

    blocks = ["mamba", "mamba"]
    model = ek.models.CausalLM(vocab_size=50, width=16, blocks=blocks, embedding_scale=1.0)
    model.build((None, None))
    ek.models.save_pretrained(model, "small-mamba")
    again = ek.models.from_pretrained("small-mamba")
    print(again.generate([1, 2, 3], max_new_tokens=5, seed=0).shape)  # (8,)
    ```
    """
    opened = Folder(folder, follow_links)
    config = opened.json(CONFIG)
    where = opened.path / CONFIG
    family = FAMILIES.get(config["model_type"]) if _named(config) else None
    if family is None:
        raise LoadError(
            where,
            f"`model_type` is {shown(config.get('model_type'))}, expected one of "
            f"{', '.join(FAMILIES)}.",
            "No other family has equal layers here.",
        )
    try:
        arguments = family.read(read_keys(config, family.keys, family.architecture))
    except KeyProblem as problem:
        raise LoadError(where, str(problem)) from None
    stored = tensors.Checkpoint(opened, max_bytes)
    parts = sum(1 + block.get("num_experts", 0) for block in arguments["blocks"])
    parts *= arguments["repeats"]
    if parts > len(stored.tensors):
        raise LoadError(
            where,
            f"it asks for {parts:,} blocks and experts, and the files hold "
            f"{len(stored.tensors):,} tensors.",
            "The configuration and the weights do not belong together: fetch both again.",
        )
    try:
        model = CausalLM(**arguments, dtype=dtype)
        variables = backend.build_unfilled(lambda: model.build((None, None)))
    except (TypeError, ValueError) as error:
        raise LoadError(where, f"no such model can be built ({error}).") from error
    found = places(model, family)
    tied = arguments["tie_embeddings"]
    compare(found, stored, family, tied)
    fill(found, stored, family, tied)
    filled = {id(variable) for place in found if place.names for variable in place.variables}
    for variable in variables:
        if id(variable) not in filled:
            backend.fill(variable)
    return model


def _named(config: dict[str, Any]) -> bool:
    return isinstance(config.get("model_type"), str)


def save_pretrained(
    model: CausalLM,
    folder: PathLike,
    *,
    family: str | None = None,
    dtype: str | None = None,
    tokenizer: Any = None,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    max_shard_bytes: int = 4 << 30,
) -> None:
    """Writes a `CausalLM` as a folder that transformers reads, with equal logits.

    The model must be one that a family has: one that `from_pretrained` gave, or one of the same
    blocks. Before anything is written, the configuration is read back and compared with the model,
    so that no option is lost. The folder appears whole or not at all, after a power cut as well.

    Args:
        model: CausalLM, built.
        folder: str or path-like. A folder that is not there yet, or is empty.
        family: str or None. A `model_type`; the first that has this model when None.
        dtype: "float32", "float16", "bfloat16", or None to keep that of each variable.
        tokenizer: a `tokenizers.Tokenizer` or None, written beside the model.
        bos_token_id: int or None. The token that begins a text, for transformers' `generate`.
        eos_token_id: int or None. The token that ends one.
        max_shard_bytes: int >= 1. Where the weights have more bytes, they are in several files.

    Example:

    ```python
    import ember_keras as ek

    model = ek.models.CausalLM(
        vocab_size=50,
        width=16,
        blocks=["attention", "gated_mlp"],
        repeats=2,
        embedding_scale=1.0,
    )
    model.build((None, None))
    ek.models.save_pretrained(model, "small-llama", eos_token_id=0)
    print(ek.models.from_pretrained("small-llama").repeats)  # 2
    ```
    """
    if not isinstance(model, CausalLM):
        raise TypeError(f"Received {model!r} ({type(model).__name__}), expected a CausalLM.")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, expected one that has its weights. Call it on "
            "some tokens, or `build((None, None))` it, first."
        )
    if dtype not in (None, *_DTYPES):
        raise ValueError(f"Received dtype={dtype!r}, expected one of {', '.join(_DTYPES)} or None.")
    if not is_whole(max_shard_bytes, 1):
        raise ValueError(
            f"Received max_shard_bytes={max_shard_bytes!r}, expected a whole number of at least 1."
        )
    for name, token in (("bos_token_id", bos_token_id), ("eos_token_id", eos_token_id)):
        if token is not None and not is_whole(token, 0):
            raise ValueError(f"Received {name}={token!r}, expected the number of a token, or None.")
    if tokenizer is not None and not hasattr(tokenizer, "to_str"):
        raise TypeError(
            f"Received tokenizer={shown(tokenizer)}, expected a `tokenizers.Tokenizer`. That of a "
            "tokenizer of transformers is its `backend_tokenizer`."
        )
    chosen, config = _configuration(model, family)
    found = places(model, chosen)
    config = {
        "architectures": [chosen.architecture],
        "model_type": chosen.model_type,
        **config,
        "bos_token_id": None if bos_token_id is None else int(bos_token_id),
        "eos_token_id": None if eos_token_id is None else int(eos_token_id),
        "pad_token_id": model.pad_token,
        "dtype": dtype or str(model.embedding.embeddings.dtype),
    }

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        for place in found:
            for name, tensor in zip(place.names, place.tensors(), strict=True):
                yield name, tensor if dtype is None else tensor.astype(_numpy_dtype(dtype))

    sizes = {
        name: int(np.prod(shape)) * _numpy_dtype(dtype or place.variables[0].dtype).itemsize
        for place in found
        for name, shape in place.shapes().items()
    }
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"Cannot save to {folder}: it is there and not an empty folder. Choose another name, "
            "or remove it first."
        )
    with hidden(target, ".partial") as partial:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            tensors.write(partial, sizes, arrays(), max_shard_bytes)
            _write_json(partial / CONFIG, config)
            if tokenizer is not None:
                (partial / TOKENIZER).write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
                _write_json(partial / "tokenizer_config.json", _TOKENIZER_CLASS)
            for path in partial.iterdir():
                sync(path)
            sync_folder(partial)
            if target.exists():
                target.rmdir()
            partial.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            raise explain(error, target) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


_TOKENIZER_CLASS = {"tokenizer_class": "PreTrainedTokenizerFast"}


def _numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _configuration(model: CausalLM, name: str | None) -> tuple[Family, dict[str, Any]]:
    """The family that a model is written as, and its configuration."""
    if name is not None and name not in FAMILIES:
        raise ValueError(f"Received family={name!r}, expected one of {', '.join(FAMILIES)}.")
    description = describe(model)
    problems = []
    for family in FAMILIES.values() if name is None else (FAMILIES[name],):
        config, problem = _written(description, family)
        if problem is None:
            return family, config
        problems.append(f"{family.model_type}: {problem}")
    raise ValueError(
        f"Received a model that no family of checkpoints has. {'; '.join(problems)}. Save it as a "
        "`.keras` file, which keeps every model."
    )


def _as_floats(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """The configuration with `1.0` for a `1` where transformers asks for a float."""
    numbers = {name for name, key in family.keys.items() if isinstance(key, Number)}
    return {
        name: float(value) if name in numbers and value is not None else value
        for name, value in config.items()
    }


def _written(description: dict[str, Any], family: Family) -> tuple[dict[str, Any], str | None]:
    """The configuration of a model in a family, and what it loses, if anything."""
    names = [block.get("mixer", block)["type"] for block in description["blocks"]]
    foreign = [name for name in names if name not in family.rules]
    if foreign:
        return {}, f"it has no `{foreign[0]}`"
    if len(names) % family.blocks_a_layer:
        return {}, f"its layers are {family.blocks_a_layer} blocks each, and there are {len(names)}"
    try:
        config = _as_floats(family.write(description), family)
        values = read_keys(config, family.keys, family.architecture)
        again = describe(CausalLM(**family.read(values)))
    except (LookupError, TypeError, ValueError) as error:
        return {}, f"it cannot say this ({error})"
    return config, first_difference(description, again)


def load_tokenizer(folder: PathLike, *, follow_links: bool = False) -> Any:
    """Reads the `tokenizer.json` of a Hugging Face folder.

    Args:
        folder: str or path-like. The folder.
        follow_links: bool. Whether the file may be a link, as in the cache of Hugging Face.

    Returns:
        A `tokenizers.Tokenizer`: `encode(text).ids` are tokens, and `decode(ids)` is text.

    Example:

    ```python
    import os

    import tokenizers
    import ember_keras as ek

    words = tokenizers.models.WordLevel({"[UNK]": 0, "once": 1, "upon": 2}, unk_token="[UNK]")
    os.mkdir("small")
    tokenizers.Tokenizer(words).save("small/tokenizer.json")
    tokenizer = ek.models.load_tokenizer("small")
    print(tokenizer.encode("once").ids)  # [1]
    ```
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise needs("tokenizers") from None
    opened = Folder(folder, follow_links)
    where = opened.path / TOKENIZER
    if TOKENIZER not in opened:
        raise LoadError(
            opened.path,
            f"the file `{TOKENIZER}` is missing.",
            "Save the tokenizer of this model once with transformers, which writes it.",
        )
    found = opened.json(TOKENIZER, MAX_TOKENIZER_BYTES)
    if not isinstance(found.get("model"), dict):
        raise LoadError(where, "it has no `model`, which a tokenizer is made of.")
    _check_maps(found, where)
    try:
        return Tokenizer.from_buffer(opened.data(TOKENIZER, MAX_TOKENIZER_BYTES))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Errors of its own, and panics, which are no Exception.
        raise LoadError(where, f"it is no tokenizer ({error}).", "Fetch it again.") from error


def _check_maps(found: Any, where: Path) -> None:
    """Refuses a map of characters that says it is larger than it is: as much would be reserved.

    It is of base64: four bytes are the size of a table of 32-bit numbers, which follows, and then
    text.
    """
    if isinstance(found, list):
        for each in found:
            _check_maps(each, where)
    if not isinstance(found, dict):
        return
    for key, value in found.items():
        if key != "precompiled_charsmap":
            _check_maps(value, where)
            continue
        try:
            data = base64.b64decode(value, validate=True)
        except (TypeError, ValueError):
            data = b""
        size = int.from_bytes(data[:4], "little")
        if size % 4 or size > len(data) - 4:
            raise LoadError(
                where, "its `precompiled_charsmap` is no map of characters.", "Fetch it again."
            )
