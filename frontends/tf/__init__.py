"""The TensorFlow frontend: a `tf.function` train step or a compiled Keras model as a graph."""

from baechi.frontends.tf.extract import capture
from baechi.frontends.tf.keras_model import capture_keras, train_step
from baechi.frontends.tf.program import TensorFlowProgram

__all__ = ["TensorFlowProgram", "capture", "capture_keras", "train_step"]
