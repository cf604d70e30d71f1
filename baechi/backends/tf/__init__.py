"""Runs a captured TensorFlow step as a plan places it."""
