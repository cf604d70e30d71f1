"""What an op and a step really take under TensorFlow."""
