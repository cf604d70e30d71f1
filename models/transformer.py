"""The Transformer, base configuration (Vaswani et al., "Attention Is All You Need", 2017).

Six encoder and six decoder layers of width 512, 8 heads, feed-forward width 2048, post-norm,
sinusoidal positions, dropout 0.1. As in Baechi's paper: vocabulary 30,000, sentences of 50 tokens,
no weights shared between the two embeddings and the output layer.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from baechi.errors import BaechiError
from baechi.models._sentences import sentences
from baechi.models.base import ModelSpec

__all__ = ["Transformer", "loss", "spec"]


class Attention(nn.Module):
    """Multi-head attention, softmax(Q K^T / sqrt(d)) V, in plain matrix products (section 3.2.2).

    Fused kernels differ from device to device; these ops run on any. The projections have no bias,
    as in the paper: softmax takes no notice of the keys', so its gradient would be rounding noise
    that Adam blows up.

    Args:
        width: model width d; each head has ``width / heads`` of it.
        heads: number of heads.
        dropout: rate on the attention weights.

    Shapes: queries ``(batch, n, width)``, memory ``(batch, m, width)``, mask ``(n, m)`` true where
    attention is not allowed; result ``(batch, n, width)``.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(memory)), self._split(self.value(memory))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(mask, -math.inf)
        mixed = self.dropout(scores.softmax(-1)) @ v
        result: torch.Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        return x.view(batch, length, self.heads, width // self.heads).transpose(1, 2)


class Residual(nn.Module):
    """LayerNorm(x + Dropout(result of a sub-layer))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(x + self.dropout(result))
        return normed


def _feed_forward(width: int, ffn: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn, width))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward; shape ``(batch, length, width)`` to the same."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.add_attention = Residual(width, dropout)
        self.ffn = _feed_forward(width, ffn, dropout)
        self.add_ffn = Residual(width, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.add_attention(x, self.attention(x, x))
        return self.add_ffn(x, self.ffn(x))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Masked self-attention, attention on the encoder's result, feed-forward."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.add_attention = Residual(width, dropout)
        self.cross = Attention(width, heads, dropout)
        self.add_cross = Residual(width, dropout)
        self.ffn = _feed_forward(width, ffn, dropout)
        self.add_ffn = Residual(width, dropout)

    def forward(self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.add_attention(x, self.attention(x, x, mask))
        x = self.add_cross(x, self.cross(x, memory))
        return self.add_ffn(x, self.ffn(x))  # type: ignore[no-any-return]


class Embedding(nn.Module):
    """Token embedding times sqrt(width), plus positions; ``(batch, length)`` to width `width`."""

    positions: torch.Tensor

    def __init__(self, vocab: int, width: int, length: int, dropout: float) -> None:
        super().__init__()
        self.scale = math.sqrt(width)
        self.tokens = nn.Embedding(vocab, width)
        nn.init.normal_(self.tokens.weight, std=1 / self.scale)
        self.register_buffer("positions", _positions(length, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.dropout(self.tokens(tokens) * self.scale + self.positions[: tokens.shape[1]])
        return x


def _positions(length: int, width: int) -> torch.Tensor:
    """PE(p, 2i) = sin(p / 10000^(2i / width)), PE(p, 2i + 1) = cos of the same."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class Encoder(nn.Module):
    """Embedding and encoder layers; tokens ``(batch, length)`` to ``(batch, length, width)``."""

    def __init__(self, embedding: Embedding, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """Embedding, decoder layers and the output layer: logits ``(batch, length, vocab)``."""

    mask: torch.Tensor

    def __init__(self, embedding: Embedding, layers: list[DecoderLayer], output: nn.Linear, length: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.output = output
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1))

    def forward(self, tokens: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        n = tokens.shape[1]
        x: torch.Tensor = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, memory, self.mask[:n, :n])
        return self.output(x)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Encoder and decoder.

    Args:
        layers: number of encoder layers and of decoder layers.
        width: model width, even and a multiple of `heads`.
        heads: attention heads.
        ffn: width of the feed-forward layers.
        vocab: tokens of each language.
        length: longest sentence.
        dropout: rate on embeddings, attention weights, hidden units and sub-layer results.

    Shapes: source and target tokens ``(batch, length)`` to logits ``(batch, length, vocab)``.
    """

    def __init__(
        self, *, layers: int, width: int, heads: int, ffn: int, vocab: int, length: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = Encoder(
            Embedding(vocab, width, length, dropout),
            [EncoderLayer(width, heads, ffn, dropout) for _ in range(layers)],
        )
        self.decoder = Decoder(
            Embedding(vocab, width, length, dropout),
            [DecoderLayer(width, heads, ffn, dropout) for _ in range(layers)],
            nn.Linear(width, vocab),
            length,
        )

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.decoder(target, self.encoder(source))
        return logits


def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over all tokens; logits ``(batch, length, vocab)``."""
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


def spec(
    *,
    layers: int = 6,
    width: int = 512,
    heads: int = 8,
    ffn: int = 2048,
    vocab: int = 30_000,
    length: int = 50,
    dropout: float = 0.1,
) -> ModelSpec:
    """Transformer base, trained by Adam with teacher forcing.

    The expert of Baechi's paper puts the encoder on one device and the decoder on another.

    Raises:
        BaechiError: B102 when `width` is odd or no multiple of `heads`.
    """
    if width % heads or width % 2:
        help = f"an even multiple of the {heads} heads"
        raise BaechiError("B102", f"option 'width' of model 'transformer' is {width}", help=help)

    def build() -> Transformer:
        return Transformer(
            layers=layers, width=width, heads=heads, ffn=ffn, vocab=vocab, length=length, dropout=dropout
        )

    def example(batch: int, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        return sentences(vocab, length, batch, seed)

    def expert(path: str, devices: int) -> int | None:
        return {"encoder": 0, "decoder": min(1, devices - 1), "": min(1, devices - 1)}.get(path.partition(".")[0])

    return ModelSpec(
        name="transformer",
        description=f"Transformer, {layers} + {layers} layers of width {width}, vocabulary {vocab:,}",
        build=build,
        example=example,
        loss=loss,
        optimizer=("adam", {"lr": 1e-4, "betas": (0.9, 0.98), "eps": 1e-9}),
        default_batch=64,
        expert=expert,
        options={
            "layers": layers,
            "width": width,
            "heads": heads,
            "ffn": ffn,
            "vocab": vocab,
            "length": length,
            "dropout": dropout,
        },
    )
