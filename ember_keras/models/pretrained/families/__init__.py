"""The families of checkpoints, a module each: names as data, and the configuration both ways."""

from ember_keras.models.pretrained.families import llama, mamba, mistral
from ember_keras.models.pretrained.families.base import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family for family in (llama.FAMILY, mistral.FAMILY, mamba.FAMILY)
}
"""By `model_type`. A model is written as the first of them that has it."""
