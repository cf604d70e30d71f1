"""The Transformer for TensorFlow: the same network as `baechi.models.transformer`, which says where it is from."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.models.tf._layers import Built, dense
from baechi.models.tf.base import Arrays, ModelSpec, tokens

__all__ = ["Transformer", "loss", "spec"]


class Attention(Built):
    """Multi-head attention, softmax(Q K^T / sqrt(d)) V, in plain matrix products (section 3.2.2).

    Args:
        width: model width d; each head has ``width / heads`` of it.
        heads: number of heads.
        dropout: rate on the attention weights.

    Shapes: queries ``(batch, n, width)``, memory ``(batch, m, width)``, mask ``(n, m)`` true where
    attention is not allowed; result ``(batch, n, width)``.
    """

    def __init__(self, width: int, heads: int, dropout: float, name: str) -> None:
        super().__init__(name)
        self.heads = heads
        self.query, self.key, self.of_value, self.output_layer = (
            dense(width, width, part, bias=False) for part in ("query", "key", "value", "output")
        )
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def call(self, x: Any, memory: Any, mask: Any = None, training: bool = False) -> Any:
        q, k, v = self._split(self.query(x)), self._split(self.key(memory)), self._split(self.of_value(memory))
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = tf.where(mask, -math.inf, scores)
        mixed = tf.matmul(self.dropout(tf.nn.softmax(scores), training=training), v)
        batch, heads, length, width = mixed.shape
        joined = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [batch, length, heads * width])
        return self.output_layer(joined)

    def _split(self, x: Any) -> Any:
        batch, length, width = x.shape
        return tf.transpose(tf.reshape(x, [batch, length, self.heads, width // self.heads]), [0, 2, 1, 3])


class Residual(Built):
    """LayerNorm(x + Dropout(result of a sub-layer))."""

    def __init__(self, width: int, dropout: float, name: str) -> None:
        super().__init__(name)
        self.dropout = keras.layers.Dropout(dropout, name="dropout")
        self.norm = keras.layers.LayerNormalization(epsilon=1e-5, name="norm")
        self.norm.build((None, None, width))

    def call(self, x: Any, result: Any, training: bool = False) -> Any:
        return self.norm(x + self.dropout(result, training=training))


class FeedForward(Built):
    """Two dense layers with ReLU and dropout between them."""

    def __init__(self, width: int, ffn: int, dropout: float) -> None:
        super().__init__("ffn")
        self.inner = dense(ffn, width, "inner")
        self.outer = dense(width, ffn, "outer")
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def call(self, x: Any, training: bool = False) -> Any:
        return self.outer(self.dropout(tf.nn.relu(self.inner(x)), training=training))


class EncoderLayer(Built):
    """Self-attention and feed-forward; shape ``(batch, length, width)`` to the same."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, name: str) -> None:
        super().__init__(name)
        self.attention = Attention(width, heads, dropout, "attention")
        self.add_attention = Residual(width, dropout, "add_attention")
        self.ffn = FeedForward(width, ffn, dropout)
        self.add_ffn = Residual(width, dropout, "add_ffn")

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.add_attention(x, self.attention(x, x, training=training), training=training)
        return self.add_ffn(x, self.ffn(x, training=training), training=training)


class DecoderLayer(Built):
    """Masked self-attention, attention on the encoder's result, feed-forward."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, name: str) -> None:
        super().__init__(name)
        self.attention = Attention(width, heads, dropout, "attention")
        self.add_attention = Residual(width, dropout, "add_attention")
        self.cross = Attention(width, heads, dropout, "cross")
        self.add_cross = Residual(width, dropout, "add_cross")
        self.ffn = FeedForward(width, ffn, dropout)
        self.add_ffn = Residual(width, dropout, "add_ffn")

    def call(self, x: Any, memory: Any, mask: Any, training: bool = False) -> Any:
        x = self.add_attention(x, self.attention(x, x, mask, training=training), training=training)
        x = self.add_cross(x, self.cross(x, memory, training=training), training=training)
        return self.add_ffn(x, self.ffn(x, training=training), training=training)


class Embedding(Built):
    """Token embedding times sqrt(width), plus positions; ``(batch, length)`` to width `width`."""

    def __init__(self, vocab: int, width: int, length: int, dropout: float) -> None:
        super().__init__("embedding")
        self.scale = math.sqrt(width)
        around = keras.initializers.RandomNormal(stddev=1 / self.scale)
        self.table = self.add_weight(shape=(vocab, width), initializer=around, name="table")
        self.positions = _positions(length, width)
        self.dropout = keras.layers.Dropout(dropout, name="dropout")

    def call(self, numbers: Any, training: bool = False) -> Any:
        x = tf.gather(self.table.value, numbers) * self.scale + self.positions[: numbers.shape[1]]
        return self.dropout(x, training=training)


def _positions(length: int, width: int) -> NDArray[np.float32]:
    """PE(p, 2i) = sin(p / 10000^(2i / width)), PE(p, 2i + 1) = cos of the same."""
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, width, 2) * (-math.log(10000.0) / width))
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, width).astype(np.float32)


class Encoder(Built):
    """Embedding and encoder layers; tokens ``(batch, length)`` to ``(batch, length, width)``."""

    def __init__(self, embedding: Embedding, layers: list[EncoderLayer]) -> None:
        super().__init__("encoder")
        self.embedding = embedding
        self.blocks = layers

    def call(self, numbers: Any, training: bool = False) -> Any:
        x = self.embedding(numbers, training=training)
        for layer in self.blocks:
            x = layer(x, training=training)
        return x


class Decoder(Built):
    """Embedding, decoder layers and the output layer: logits ``(batch, length, vocab)``."""

    def __init__(self, embedding: Embedding, layers: list[DecoderLayer], output: Any, length: int) -> None:
        super().__init__("decoder")
        self.embedding = embedding
        self.blocks = layers
        self.logits = output
        self.mask = np.triu(np.ones((length, length), bool), 1)

    def call(self, numbers: Any, memory: Any, training: bool = False) -> Any:
        n = numbers.shape[1]
        x = self.embedding(numbers, training=training)
        for layer in self.blocks:
            x = layer(x, memory, self.mask[:n, :n], training=training)
        return self.logits(x)


class Transformer(keras.Model):
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
        super().__init__(name="transformer")
        blocks = [EncoderLayer(width, heads, ffn, dropout, f"layer_{i}") for i in range(layers)]
        self.encoder = Encoder(Embedding(vocab, width, length, dropout), blocks)
        others = [DecoderLayer(width, heads, ffn, dropout, f"layer_{i}") for i in range(layers)]
        output = dense(vocab, width, "output")
        self.decoder = Decoder(Embedding(vocab, width, length, dropout), others, output, length)
        self.built = True

    def call(self, source: Any, target: Any, training: bool = False) -> Any:
        return self.decoder(target, self.encoder(source, training=training), training=training)


def loss(output: Any, target: Any) -> Any:
    """Mean cross entropy over all tokens: logits ``(batch, length, vocab)``, target ``(batch, length)``."""
    with tf.name_scope("loss"):
        logits, wanted = tf.reshape(output, [-1, output.shape[-1]]), tf.reshape(target, [-1])
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=wanted, logits=logits))


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
    """The base Transformer, trained by Adam with the constants of its paper.

    The expert of Baechi's paper puts the encoder on one device and the decoder on another.

    Raises:
        BaechiError: B102 when `width` is odd or no multiple of `heads`.
    """
    if width % heads or width % 2:
        raise BaechiError(
            "B102", f"option 'width' of model 'transformer' is {width}", help=f"an even multiple of heads={heads}"
        )

    def example(batch: int, seed: int = 0) -> tuple[Arrays, NDArray[Any]]:
        return tokens(vocab, length, batch, seed)

    def expert(path: str, devices: int) -> int | None:
        if path.startswith("transformer.encoder"):
            return 0
        return min(1, devices - 1) if path.partition(".")[0] in ("transformer", "loss") else None

    return ModelSpec(
        name="transformer",
        description=f"Transformer, {layers} + {layers} layers of width {width}, vocabulary {vocab:,}",
        build=lambda: Transformer(
            layers=layers, width=width, heads=heads, ffn=ffn, vocab=vocab, length=length, dropout=dropout
        ),
        example=example,
        loss=loss,
        optimizer=("adam", {"learning_rate": 1e-4, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-9}),
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
