"""Inception-V3 for TensorFlow: `keras.applications.InceptionV3` without weights, for training from scratch.

Szegedy et al., "Rethinking the Inception Architecture" (2015). Keras leaves out the auxiliary head;
23,851,784 parameters, of which 34,432 are statistics of batch normalisation.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from baechi.errors import BaechiError
from baechi.models.tf.base import Arrays, ModelSpec

__all__ = ["loss", "spec"]

_SMALLEST = 75


def loss(output: Any, target: Any) -> Any:
    """Mean cross entropy of logits ``(batch, classes)``."""
    with tf.name_scope("loss"):
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=output))


def spec(*, image: int = 299, classes: int = 1000, dropout: float = 0.5) -> ModelSpec:
    """Inception-V3, trained by RMSProp with the constants of its paper.

    Keras's network ends in average pooling; dropout and the classifier, which makes logits, come after it.
    The expert of Baechi's paper uses one device.

    Raises:
        BaechiError: B102 when `image` is too small for the network.
    """
    if image < _SMALLEST:
        help = f"{_SMALLEST} or more"
        raise BaechiError("B102", f"option 'image' of model 'inception_v3' is {image}", help=help)

    def build() -> keras.Model:
        body = keras.applications.InceptionV3(
            weights=None, include_top=False, pooling="avg", input_shape=(image, image, 3)
        )
        rest = keras.layers.Dropout(dropout, name="dropout")(body.output)
        logits = keras.layers.Dense(classes, name="predictions")(rest)
        return keras.Model(body.input, logits, name="inception_v3")

    def example(batch: int, seed: int = 0) -> tuple[Arrays, NDArray[Any]]:
        numbers = np.random.default_rng(seed)
        images = numbers.standard_normal((batch, image, image, 3), dtype=np.float32)
        return (images,), numbers.integers(classes, size=batch, dtype=np.int32)

    return ModelSpec(
        name="inception_v3",
        description=f"Inception-V3, {image} x {image} images, {classes} classes",
        build=build,
        example=example,
        loss=loss,
        optimizer=("rmsprop", {"learning_rate": 0.045, "rho": 0.9, "epsilon": 1.0}),
        default_batch=32,
        expert=lambda path, devices: 0 if path.partition(".")[0] in ("inception_v3", "loss") else None,
        options={"image": image, "classes": classes, "dropout": dropout},
    )
