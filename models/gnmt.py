"""GNMT, the translation network of Baechi's paper, unrolled over time.

After Wu et al., "Google's Neural Machine Translation System" (2016), in the size of Baechi's paper:
4 encoder and 4 decoder LSTM layers of 512 units, Bahdanau attention, vocabulary 30,000, sentences
of 40 tokens. As in both papers the first encoder layer is bidirectional (so there are 5 encoder
cells), residual connections begin at the third layer, and what attention finds for the bottom
decoder layer's last output is an input of every decoder layer. No dropout, as in Baechi's runs.
Baechi's paper names no optimiser for it; here it is Adam.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from baechi.errors import BaechiError
from baechi.models._sentences import sentences
from baechi.models.base import ModelSpec, layer_index

__all__ = ["GNMT", "loss", "spec"]

State = tuple[torch.Tensor, torch.Tensor]
Parts = tuple[torch.Tensor, ...]
_RUN = 5  # tokens whose logits are made and scored together


class Cell(nn.Module):
    """One LSTM step; its input, forget and output gates and new content are one matrix product.

    Args:
        inputs: features of the inputs together.
        units: features of the output h and the memory c.

    Shapes: parts ``(batch, …)`` of `inputs` features in all, h and c ``(batch, units)``.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        bound = units**-0.5
        self.weight = nn.Parameter(torch.empty(inputs + units, 4 * units).uniform_(-bound, bound))
        forget = torch.zeros(4, units)
        forget[1] = 1.0
        self.bias = nn.Parameter(forget.flatten())

    def forward(self, parts: Parts, state: State) -> State:
        h, c = state
        gates = torch.addmm(self.bias, torch.cat([*parts, h], dim=1), self.weight)
        opening, new = torch.split(gates, [3 * c.shape[1], c.shape[1]], dim=1)
        i, f, o = opening.sigmoid().chunk(3, dim=1)
        c = f * c + i * new.tanh()
        return o * c.tanh(), c


class Layer(nn.Module):
    """A cell unrolled over time; with `residual` its first input is added to its output."""

    def __init__(self, inputs: int, units: int, *, residual: bool = False) -> None:
        super().__init__()
        self.units = units
        self.residual = residual
        self.cell = Cell(inputs, units)

    def forward(self, steps: Iterable[Parts], state: State | None = None) -> tuple[list[torch.Tensor], State]:
        outputs: list[torch.Tensor] = []
        for parts in steps:
            if state is None:
                zero = parts[0].new_zeros(parts[0].shape[0], self.units)
                state = (zero, zero)
            state = self.cell(parts, state)
            outputs.append(state[0] + parts[0] if self.residual else state[0])
        if state is None:
            raise BaechiError("B102", "a sentence has no tokens", help="give at least one")
        return outputs, state


class Bidirectional(nn.Module):
    """A layer that reads the sentence both ways; its state is the backward one's."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.ahead = Layer(inputs, units)
        self.back = Layer(inputs, units)

    def forward(self, steps: Sequence[Parts]) -> tuple[list[Parts], State]:
        ahead, _ = self.ahead(steps)
        back, state = self.back(steps[::-1])
        return list(zip(ahead, reversed(back), strict=True)), state


class Attention(nn.Module):
    """Bahdanau's: weights = softmax(v . tanh(W h + U memory)), result = their mean of memory.

    Shapes: query ``(batch, units)``, keys = U memory and memory ``(batch, length, units)``.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.query = nn.Linear(units, units, bias=False)
        self.key = nn.Linear(units, units, bias=False)
        self.score = nn.Parameter(torch.empty(units).uniform_(-(units**-0.5), units**-0.5))

    def forward(self, query: torch.Tensor, keys: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(keys + self.query(query).unsqueeze(1))
        scores = torch.mv(hidden.flatten(0, 1), self.score).view(hidden.shape[:2])
        return torch.bmm(scores.softmax(1).unsqueeze(1), memory).squeeze(1)


class Embedding(nn.Module):
    """Tokens ``(batch, length)`` to one ``(batch, units)`` for each step."""

    def __init__(self, vocab: int, units: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab, units)
        nn.init.uniform_(self.tokens.weight, -0.1, 0.1)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps: tuple[torch.Tensor, ...] = self.tokens(tokens.t()).unbind(0)
        return steps


class Encoder(nn.Module):
    """Tokens to memory ``(batch, length, units)`` and the last state of each layer."""

    def __init__(self, vocab: int, units: int, layers: int) -> None:
        super().__init__()
        self.embedding = Embedding(vocab, units)
        self.layers = nn.ModuleList([Bidirectional(units, units), Layer(2 * units, units)])
        self.layers.extend(Layer(units, units, residual=True) for _ in range(layers - 2))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, list[State]]:
        bottom, *upper = self.layers
        steps, state = bottom([(x,) for x in self.embedding(tokens)])
        states = [state]
        for layer in upper:
            outputs, state = layer(steps)
            steps = [(x,) for x in outputs]
            states.append(state)
        return torch.stack(outputs, dim=1), states


class Decoder(nn.Module):
    """Tokens, memory and states to ``(batch, length, units)``.

    Attention looks from the bottom layer alone, so the others are unrolled after it, one by one.
    """

    def __init__(self, vocab: int, units: int, layers: int) -> None:
        super().__init__()
        self.embedding = Embedding(vocab, units)
        self.attention = Attention(units)
        self.layers = nn.ModuleList(Layer(2 * units, units, residual=i >= 2) for i in range(layers))

    def forward(self, tokens: torch.Tensor, memory: torch.Tensor, states: list[State]) -> torch.Tensor:
        keys = self.attention.key(memory)
        context = torch.zeros_like(memory[:, 0])
        bottom, *upper = self.layers
        outputs: list[torch.Tensor] = []
        contexts: list[torch.Tensor] = []
        state = states[0]
        for x in self.embedding(tokens):
            if outputs:
                context = self.attention(outputs[-1], keys, memory)
            (output,), state = bottom([(x, context)], state)
            outputs.append(output)
            contexts.append(context)
        for layer, state in zip(upper, states[1:], strict=True):
            outputs, _ = layer(list(zip(outputs, contexts, strict=True)), state)
        return torch.stack(outputs, dim=1)


class GNMT(nn.Module):
    """Encoder, decoder and output layer.

    Args:
        vocab: tokens of each language.
        units: features of embeddings and layers.
        layers: encoder layers, and decoder layers; 2 or more.

    Shapes: source and target tokens ``(batch, length)`` to logits ``(batch, length, vocab)``, as a
    tuple of runs of five tokens: no device need hold the logits of a whole sentence at once.
    """

    def __init__(self, *, vocab: int, units: int, layers: int) -> None:
        super().__init__()
        self.encoder = Encoder(vocab, units, layers)
        self.decoder = Decoder(vocab, units, layers)
        self.output = nn.Linear(units, vocab, bias=False)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Parts:
        memory, states = self.encoder(source)
        found: torch.Tensor = self.decoder(target, memory, states)
        return tuple(self.output(run) for run in torch.split(found, _RUN, dim=1))


def loss(output: Parts, target: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over all tokens; logits ``(batch, length, vocab)`` in runs of tokens."""
    runs = zip(output, torch.split(target, _RUN, dim=1), strict=True)
    losses = [F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum") for logits, wanted in runs]
    return torch.stack(losses).sum() / target.numel()


def spec(*, length: int = 40, layers: int = 4, units: int = 512, vocab: int = 30_000) -> ModelSpec:
    """GNMT of 4 + 4 layers, trained by Adam with teacher forcing.

    The expert gives each device a run of layers, encoder and decoder alike (Wu et al., section 4);
    embeddings go with the first layer, attention and the output layer with the last.

    Raises:
        BaechiError: B102 on fewer than 2 layers.
    """
    if layers < 2:
        raise BaechiError("B102", f"option 'layers' of model 'gnmt' is {layers}", help="write 2 or more")

    def example(batch: int, seed: int = 0) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        return sentences(vocab, length, batch, seed)

    def expert(path: str, devices: int) -> int | None:
        part, _, rest = path.partition(".")
        if part not in ("", "encoder", "decoder", "output"):
            return None
        layer = layer_index(rest, "layers")
        if layer is None:
            layer = 0 if rest.startswith("embedding") else layers - 1
        return layer * devices // layers

    return ModelSpec(
        name="gnmt",
        description=f"GNMT, {layers} + {layers} LSTM layers of {units} units, {length} tokens, vocabulary {vocab:,}",
        build=lambda: GNMT(vocab=vocab, units=units, layers=layers),
        example=example,
        loss=loss,
        optimizer=("adam", {"lr": 1e-3}),
        default_batch=128,
        expert=expert,
        options={"length": length, "layers": layers, "units": units, "vocab": vocab},
    )
