"""GNMT for TensorFlow, unrolled over time: the same network as `baechi.models.gnmt`, which says where it is from."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.models.tf._layers import Built
from baechi.models.tf.base import Arrays, ModelSpec, tokens

__all__ = ["GNMT", "loss", "spec"]

State = tuple[Any, Any]
_RUN = 5  # tokens whose logits are made and scored together


class Cell(Built):
    """One LSTM step; its input, forget and output gates and new content are one matrix product.

    Args:
        inputs: features of the inputs together.
        units: features of the output h and the memory c.

    Shapes: parts ``(batch, …)`` of `inputs` features in all, h and c ``(batch, units)``.
    """

    def __init__(self, inputs: int, units: int, name: str = "cell") -> None:
        super().__init__(name=name)
        bound = units**-0.5
        self.units = units
        around = keras.initializers.RandomUniform(-bound, bound)
        self.kernel = self.add_weight(shape=(inputs + units, 4 * units), initializer=around, name="kernel")
        self.bias = self.add_weight(shape=(4 * units,), initializer=_open_forget_gate, name="bias")

    def call(self, parts: tuple[Any, ...], state: State) -> State:
        h, c = state
        gates = tf.nn.bias_add(tf.matmul(tf.concat([*parts, h], 1), self.kernel.value), self.bias.value)
        opening, new = tf.split(gates, [3 * self.units, self.units], axis=1)
        i, f, o = tf.split(tf.sigmoid(opening), 3, axis=1)
        c = f * c + i * tf.tanh(new)
        return o * tf.tanh(c), c


def _open_forget_gate(shape: tuple[int, ...], dtype: Any = None) -> Any:
    zero = tf.zeros([shape[0] // 4], dtype or tf.float32)
    return tf.concat([zero, zero + 1, zero, zero], 0)


class Layer(Built):
    """A cell unrolled over time; with `residual` its first input is added to its output."""

    def __init__(self, inputs: int, units: int, *, name: str, residual: bool = False) -> None:
        super().__init__(name=name)
        self.residual = residual
        self.cell = Cell(inputs, units)

    def call(self, steps: Iterable[tuple[Any, ...]], state: State | None = None) -> tuple[list[Any], State]:
        outputs = []
        for parts in steps:
            if state is None:
                zero = tf.zeros([parts[0].shape[0], self.cell.units])
                state = (zero, zero)
            state = self.cell(parts, state)
            outputs.append(state[0] + parts[0] if self.residual else state[0])
        if state is None:
            raise BaechiError("B102", "a sentence has no tokens", help="give at least one")
        return outputs, state


class Bidirectional(Built):
    """A layer that reads the sentence both ways; its state is the backward one's."""

    def __init__(self, inputs: int, units: int, *, name: str) -> None:
        super().__init__(name=name)
        self.ahead = Layer(inputs, units, name="ahead")
        self.back = Layer(inputs, units, name="back")

    def call(self, steps: Sequence[tuple[Any, ...]]) -> tuple[list[tuple[Any, Any]], State]:
        ahead, _ = self.ahead(steps)
        back, state = self.back(steps[::-1])
        return list(zip(ahead, reversed(back), strict=True)), state


class Attention(Built):
    """Bahdanau's: weights = softmax(v . tanh(W h + U memory)), result = their mean of memory.

    Shapes: query ``(batch, units)``, keys = U memory and memory ``(batch, length, units)``.
    """

    def __init__(self, units: int, name: str = "attention") -> None:
        super().__init__(name=name)
        around = keras.initializers.RandomUniform(-(units**-0.5), units**-0.5)
        self.query = self.add_weight(shape=(units, units), initializer=around, name="query")
        self.key = self.add_weight(shape=(units, units), initializer=around, name="key")
        self.score = self.add_weight(shape=(units, 1), initializer=around, name="score")

    def keys(self, memory: Any) -> Any:
        """U memory."""
        batch, length, units = memory.shape
        return tf.reshape(tf.matmul(tf.reshape(memory, [-1, units]), self.key.value), [batch, length, units])

    def call(self, query: Any, keys: Any, memory: Any) -> Any:
        batch, length, units = memory.shape
        hidden = tf.tanh(keys + tf.matmul(query, self.query.value)[:, None])
        scores = tf.reshape(tf.matmul(tf.reshape(hidden, [-1, units]), self.score.value), [batch, length])
        return tf.squeeze(tf.matmul(tf.nn.softmax(scores)[:, None], memory), 1)


class Embedding(Built):
    """Tokens ``(batch, length)`` to one ``(batch, units)`` for each step."""

    def __init__(self, vocab: int, units: int, name: str = "embedding") -> None:
        super().__init__(name=name)
        around = keras.initializers.RandomUniform(-0.1, 0.1)
        self.table = self.add_weight(shape=(vocab, units), initializer=around, name="table")

    def call(self, numbers: Any) -> list[Any]:
        found: list[Any] = tf.unstack(tf.gather(self.table.value, tf.transpose(numbers)))
        return found


class Encoder(Built):
    """Tokens to memory ``(batch, length, units)`` and the last state of each layer."""

    def __init__(self, vocab: int, units: int, layers: int) -> None:
        super().__init__(name="encoder")
        self.embedding = Embedding(vocab, units)
        self.bottom = Bidirectional(units, units, name="layer_0")
        self.second = Layer(2 * units, units, name="layer_1")
        self.upper = [Layer(units, units, residual=True, name=f"layer_{i}") for i in range(2, layers)]

    def call(self, numbers: Any) -> tuple[Any, list[State]]:
        steps, state = self.bottom([(x,) for x in self.embedding(numbers)])
        states, outputs = [state], []
        for layer in (self.second, *self.upper):
            outputs, state = layer(steps)
            steps = [(x,) for x in outputs]
            states.append(state)
        return tf.stack(outputs, axis=1), states


class Decoder(Built):
    """Tokens, memory and states to ``(batch, length, units)``.

    Attention looks from the bottom layer alone, so the others are unrolled after it, one by one.
    """

    def __init__(self, vocab: int, units: int, layers: int) -> None:
        super().__init__(name="decoder")
        self.embedding = Embedding(vocab, units)
        self.attention = Attention(units)
        self.steps = [Layer(2 * units, units, residual=i >= 2, name=f"layer_{i}") for i in range(layers)]

    def call(self, numbers: Any, memory: Any, states: list[State]) -> Any:
        keys = self.attention.keys(memory)
        context = tf.zeros_like(memory[:, 0])
        bottom, *upper = self.steps
        outputs: list[Any] = []
        contexts: list[Any] = []
        state = states[0]
        for x in self.embedding(numbers):
            if outputs:
                context = self.attention(outputs[-1], keys, memory)
            (output,), state = bottom([(x, context)], state)
            outputs.append(output)
            contexts.append(context)
        for layer, state in zip(upper, states[1:], strict=True):
            outputs, _ = layer(list(zip(outputs, contexts, strict=True)), state)
        return tf.stack(outputs, axis=1)


class Output(Built):
    """``(batch, length, units)`` to logits ``(batch * run, vocab)``, one for each run of five tokens."""

    def __init__(self, vocab: int, units: int) -> None:
        super().__init__(name="output")
        around = keras.initializers.RandomUniform(-(units**-0.5), units**-0.5)
        self.kernel = self.add_weight(shape=(units, vocab), initializer=around, name="kernel")

    def call(self, found: Any) -> tuple[Any, ...]:
        runs = (found[:, i : i + _RUN] for i in range(0, found.shape[1], _RUN))
        return tuple(tf.matmul(tf.reshape(run, [-1, run.shape[2]]), self.kernel.value) for run in runs)


class GNMT(keras.Model):
    """Encoder, decoder and output layer.

    Args:
        vocab: tokens of each language.
        units: features of embeddings and layers.
        layers: encoder layers, and decoder layers; 2 or more.

    Shapes: source and target tokens ``(batch, length)`` to logits ``(batch * run, vocab)`` for each run of
    five tokens: no device need hold the logits of a whole sentence at once.
    """

    def __init__(self, *, vocab: int, units: int, layers: int) -> None:
        super().__init__(name="gnmt")
        self.encoder = Encoder(vocab, units, layers)
        self.decoder = Decoder(vocab, units, layers)
        self.logits = Output(vocab, units)
        self.built = True

    def call(self, source: Any, target: Any, training: bool = False) -> tuple[Any, ...]:
        memory, states = self.encoder(source)
        logits: tuple[Any, ...] = self.logits(self.decoder(target, memory, states))
        return logits


def loss(output: tuple[Any, ...], target: Any) -> Any:
    """Mean cross entropy over all tokens ``(batch, length)``, from logits in runs of tokens."""
    with tf.name_scope("loss"):
        sums = []
        for i, logits in enumerate(output):
            wanted = tf.reshape(target[:, _RUN * i : _RUN * (i + 1)], [-1])
            found = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=wanted, logits=logits)
            sums.append(tf.reduce_sum(found))
        return tf.add_n(sums) / float(target.shape[0] * target.shape[1])


def spec(*, length: int = 40, layers: int = 4, units: int = 512, vocab: int = 30_000) -> ModelSpec:
    """GNMT of 4 + 4 layers, trained by Adam with teacher forcing.

    The expert gives each device a run of layers, encoder and decoder alike (Wu et al., section 4);
    embeddings go with the first layer, attention, the output layer and the loss with the last.

    Raises:
        BaechiError: B102 on fewer than 2 layers.
    """
    if layers < 2:
        raise BaechiError("B102", f"option 'layers' of model 'gnmt' is {layers}", help="write 2 or more")

    def example(batch: int, seed: int = 0) -> tuple[Arrays, NDArray[Any]]:
        return tokens(vocab, length, batch, seed)

    def expert(path: str, devices: int) -> int | None:
        parts = path.split(".")
        if parts[0] not in ("gnmt", "loss"):
            return None
        index = next((int(p.removeprefix("layer_")) for p in parts if p.startswith("layer_")), layers - 1)
        return 0 if "embedding" in parts else index * devices // layers

    return ModelSpec(
        name="gnmt",
        description=f"GNMT, {layers} + {layers} LSTM layers of {units} units, {length} tokens, vocabulary {vocab:,}",
        build=lambda: GNMT(vocab=vocab, units=units, layers=layers),
        example=example,
        loss=loss,
        optimizer=("adam", {"learning_rate": 1e-3}),
        default_batch=128,
        expert=expert,
        options={"length": length, "layers": layers, "units": units, "vocab": vocab},
    )
