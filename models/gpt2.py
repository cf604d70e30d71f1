"""GPT-2, 124 M parameters (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).

The architecture is that of the transformers package, with random weights. The input embedding and
the output layer share one matrix.
"""

import importlib
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from baechi.errors import BaechiError
from baechi.models.base import ModelSpec, at_least, layer_index

__all__ = ["loss", "spec"]


def loss(output: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each token but the first, given those before it.

    Args:
        output: with ``logits`` of shape ``(batch, length, vocabulary)``.
        tokens: ``(batch, length)``.
    """
    return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def spec(
    *,
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    vocabulary: int = 50_257,
    length: int = 128,
    dropout: float = 0.1,
) -> ModelSpec:
    """GPT-2 small on sequences of 128 tokens, trained by AdamW.

    The expert cuts the layers into runs of equal length; the embeddings come with the first, the
    output, which shares their matrix, with the last.

    Raises:
        BaechiError: B102 when the width is no multiple of the heads, B106 without the transformers package.
    """
    at_least(2, length=length)
    if width % heads:
        raise BaechiError("B102", f"a width of {width} does not split into {heads} heads", help="write a multiple")

    def build() -> nn.Module:
        transformers = _transformers()
        config = transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=length,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=vocabulary - 1,
            eos_token_id=vocabulary - 1,
            use_cache=False,
        )
        model: nn.Module = transformers.GPT2LMHeadModel(config).train()
        return model

    def example(batch: int, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        tokens = torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
        return (tokens,), tokens

    def expert(path: str, devices: int) -> int | None:
        if path in ("transformer", "transformer.drop", "transformer.h", "transformer.wpe", "transformer.wte"):
            return 0
        if path in ("", "lm_head", "transformer.ln_f"):
            return devices - 1
        layer = layer_index(path, "transformer.h")
        return None if layer is None else layer * devices // layers

    _transformers()
    return ModelSpec(
        name="gpt2",
        description=f"GPT-2 with {layers} layers of width {width}",
        build=build,
        example=example,
        loss=loss,
        optimizer=("adamw", {"lr": 1e-4}),
        default_batch=8,
        expert=expert,
        options={
            "layers": layers,
            "width": width,
            "heads": heads,
            "vocabulary": vocabulary,
            "length": length,
            "dropout": dropout,
        },
    )


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise BaechiError(
            "B106",
            f"models:gpt2 needs the transformers package: {error}",
            help="pip install -c constraints.txt transformers",
        ) from None
