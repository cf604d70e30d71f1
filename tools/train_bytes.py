"""The source of Python's library as bytes, and a small transformer: alone, as a replica, or by all-reduce.

baechi replicas -n 4 -- tools/train_bytes.py
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from _train import Batch, arguments, train

CONTEXT, WIDTH, LAYERS, HEADS, BATCH = 64, 64, 2, 4, 8


class Bytes(torch.nn.Module):
    """Predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(256, WIDTH)
        self.place = torch.nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.output = torch.nn.Linear(WIDTH, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        return self.output(self.layers(self.embed(x) + self.place, mask=mask, is_causal=True))


def main() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
    cut = len(text) * 9 // 10

    def windows(source: torch.Tensor, starts: torch.Tensor) -> Batch:
        both = torch.stack([source[s : s + CONTEXT + 1] for s in starts])
        return both[:, :-1], both[:, 1:]

    def batches(index: int, count: int, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        own = text[:cut].chunk(count)[index % count]
        while True:
            yield windows(own, torch.randint(len(own) - CONTEXT - 1, (BATCH,), generator=generator))

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(output.reshape(-1, 256), target.reshape(-1))

    held_out = windows(text[cut:], torch.arange(0, len(text) - cut - CONTEXT - 1, 2000))
    train(arguments(__doc__, 800), Bytes, batches, loss, held_out)


if __name__ == "__main__":
    main()
