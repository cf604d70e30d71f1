"""What TensorFlow alone makes of the small step."""

import pytest
import tensorflow as tf

from tests.backends.tf.net import STEPS, Trained, as_written, make_net


@pytest.fixture(scope="session")
def plain() -> Trained:
    """Op by op as written."""
    net = make_net()
    function = tf.function(net.step)
    with as_written():
        losses = [float(function(net.x, net.y)) for _ in range(STEPS)]
    return Trained(losses, net.weights)
