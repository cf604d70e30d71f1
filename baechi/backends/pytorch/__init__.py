"""Runs a plan with PyTorch: on virtual CPU devices, one thread each, or on CUDA devices by streams."""

from baechi.backends.pytorch.autograd import PlacedForward, make_forward
from baechi.backends.pytorch.check import check_devices
from baechi.backends.pytorch.executor import Executor

__all__ = ["Executor", "PlacedForward", "check_devices", "make_forward"]
