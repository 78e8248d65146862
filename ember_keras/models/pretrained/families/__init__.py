"""The families of checkpoints, a module each: names as data, and the configuration both ways."""

from ember_keras.models.pretrained.families import (
    llama,
    mamba,
    mamba2,
    mistral,
    mixtral,
    qwen3_next,
    recurrent_gemma,
    rwkv,
)
from ember_keras.models.pretrained.families.base import Family

_MODULES = (llama, mistral, mixtral, mamba, mamba2, recurrent_gemma, qwen3_next, rwkv)
FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
"""By `model_type`. A model is written as the first of them that has it."""
