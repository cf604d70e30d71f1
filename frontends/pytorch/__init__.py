"""The PyTorch frontend: a training step of any `nn.Module` as a graph."""

from baechi.frontends.pytorch.conform import conform
from baechi.frontends.pytorch.extract import capture
from baechi.frontends.pytorch.modules import build_meta
from baechi.frontends.pytorch.program import OptimizerSpec, TorchProgram

__all__ = ["OptimizerSpec", "TorchProgram", "build_meta", "capture", "conform"]
