"""What a TensorFlow model is, and the training step that it is given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from baechi.models.base import Expert

if TYPE_CHECKING:
    import keras

__all__ = ["Arrays", "Example", "ModelSpec", "tokens"]

Arrays = tuple[NDArray[Any], ...]


class Example(Protocol):
    """Makes the inputs of one step."""

    def __call__(self, batch: int, seed: int = 0) -> tuple[Arrays, NDArray[Any]]:
        """The model's arguments and the target; equal for equal `batch` and `seed`."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model with all that a training step of it needs; its PyTorch twin is `baechi.models.ModelSpec`.

    Attributes:
        name: what `get` knows it by.
        description: one line for a person.
        build: makes the model.
        example: makes the model's arguments and the target for a batch size, as arrays.
        loss: from the model's result and the target to a scalar.
        optimizer: name of a Keras optimiser in lower case and its options.
        default_batch: the paper's batch size.
        expert: from an op's module path and a number of devices to the index of the device that a
            human expert would choose; None for a path that is not the model's.
        options: every option in effect, by name.
    """

    name: str
    description: str
    build: "Callable[[], keras.Model]"
    example: Example
    loss: Callable[[Any, Any], Any]
    optimizer: tuple[str, Mapping[str, Any]]
    default_batch: int
    expert: Expert
    options: Mapping[str, Any] = field(default_factory=dict)

    def step(self) -> Callable[..., Any]:
        """Make the model and its optimiser, and the `tf.function` that trains them on one batch.

        It takes the model's arguments and the target, and returns the loss. Embeddings have dense gradients,
        as on the PyTorch side.
        """
        import keras
        import tensorflow as tf

        keras.utils.clear_session(free_memory=False)  # layers are counted from 1, so that equal steps are called alike
        model = self.build()
        optimizer = keras.optimizers.get({"class_name": self.optimizer[0], "config": dict(self.optimizer[1])})
        optimizer.build(model.trainable_variables)
        weights = [v.value for v in model.trainable_variables]
        find_loss = self.loss

        def step(*batch: Any) -> Any:
            *inputs, target = batch
            with tf.GradientTape() as tape:
                loss = find_loss(model(*inputs, training=True), target)
            gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, weights)]
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        made: Callable[..., Any] = tf.function(step, autograph=False)
        return made

    def job(self, batch: int | None = None, seed: int = 0) -> dict[str, Any]:
        """A new step and the example arguments of it, as ``step`` and ``args``.

        Args:
            batch: batch size; None for the paper's.
            seed: of the example.
        """
        inputs, target = self.example(batch or self.default_batch, seed)
        return {"step": self.step(), "args": (*inputs, target)}


def tokens(vocab: int, length: int, batch: int, seed: int) -> tuple[Arrays, NDArray[Any]]:
    """Sentences of a source and a target language ``(batch, length)``, and the target one token on.

    Example:
        >>> (source, given), wanted = tokens(10, 3, 2, seed=0)
        >>> source.shape, bool((given[:, 1:] == wanted[:, :-1]).all())
        ((2, 3), True)
    """
    numbers = np.random.default_rng(seed)
    source = numbers.integers(vocab, size=(batch, length), dtype=np.int32)
    target = numbers.integers(vocab, size=(batch, length + 1), dtype=np.int32)
    return (source, target[:, :-1].copy()), target[:, 1:].copy()
