"""Checkpoints of Hugging Face transformers, read and written without it."""

from ember_keras.models.pretrained.api import from_pretrained, load_tokenizer, save_pretrained

__all__ = ["from_pretrained", "load_tokenizer", "save_pretrained"]
