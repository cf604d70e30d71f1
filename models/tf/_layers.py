"""What layers of more than one model share."""

from typing import Any

import keras

__all__ = ["Built", "dense"]


class Built(keras.layers.Layer):
    """A layer whose weights exist when it is made, so that Keras need not run it to find out about them."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.built = True


def dense(units: int, inputs: int, name: str, *, bias: bool = True) -> Any:
    """A dense layer with its weights."""
    layer = keras.layers.Dense(units, use_bias=bias, name=name)
    layer.build((None, inputs))
    return layer
