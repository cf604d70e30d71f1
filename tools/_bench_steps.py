"""Training steps of language models from their configs; neither weights nor a device are needed."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from baechi.frontends.pytorch import build_meta, capture

if TYPE_CHECKING:
    from baechi.frontends.pytorch import TorchProgram

__all__ = ["CONFIGS", "language_step"]

CONFIGS: dict[str, tuple[Any, int]] = {
    "gpt2": (GPT2Config(use_cache=False), 128),
    "llama-70b": (
        LlamaConfig(
            hidden_size=8192,
            num_hidden_layers=80,
            num_attention_heads=64,
            num_key_value_heads=8,
            intermediate_size=28672,
            vocab_size=128256,
            max_position_embeddings=4096,
            use_cache=False,
        ),
        4096,
    ),
}
"""Config, and tokens in a sample."""


def language_step(name: str, layers: int | None = None) -> "TorchProgram":
    """A step of one of `CONFIGS`, of one sample, by AdamW; with another number of layers if given."""
    config, length = CONFIGS[name]
    if layers is not None:
        config = copy.copy(config)
        config.num_hidden_layers = layers
    ids = torch.zeros(1, length, dtype=torch.int64)
    model = build_meta(lambda: AutoModelForCausalLM.from_config(config))
    return capture(model, (ids,), {"labels": ids}, loss="output", optimizer="adamw", name=name)
