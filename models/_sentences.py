"""Pairs of sentences to translate, for the models that do."""

import torch

__all__ = ["sentences"]


def sentences(vocab: int, length: int, batch: int, seed: int) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Random sentences of a source and a target language ``(batch, length)``, and the target one token on.

    Example:
        >>> (source, given), wanted = sentences(10, 3, 2, seed=0)
        >>> source.shape, bool((given[:, 1:] == wanted[:, :-1]).all())
        (torch.Size([2, 3]), True)
    """
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(vocab, (batch, length), generator=generator)
    target = torch.randint(vocab, (batch, length + 1), generator=generator)
    return (source, target[:, :-1].contiguous()), target[:, 1:].contiguous()
