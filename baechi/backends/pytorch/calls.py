"""Write ops out as Python source: each is one call into ATen, with its constants bound as names."""

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from baechi.frontends.pytorch.program import TorchProgram
from baechi.ir.op import Op

__all__ = ["CallWriter"]


class CallWriter:
    """Source in the making: its lines, and the names that it refers to.

    Args:
        program: whose ops are written.
        devices: the torch device by device name.
        names: what the source calls besides; it also calls ``UPDATES``.
        suffix: by device name, what to add to the variables of that device.
    """

    def __init__(
        self,
        program: TorchProgram,
        devices: Mapping[str, torch.device],
        names: Mapping[str, Any],
        suffix: Mapping[str, str],
    ) -> None:
        self.program, self.devices, self.names, self.suffix = program, devices, dict(names), suffix
        self.graph = program.graph
        self.bound: dict[Any, str] = {}
        self.defined: set[str] = set()
        self.text: list[str] = []

    def emit(self, line: str) -> None:
        """Add a line to the function."""
        self.text.append(f"    {line}")

    def var(self, tensor: str, device: str) -> str:
        """The variable that holds a tensor on a device."""
        return self.program.values[tensor].name + self.suffix[device]

    def op(self, op: Op, device: str) -> list[str]:
        """Write an op; returns the variables that it defines."""
        if op.kind == "update":
            self.emit(f"UPDATES[{op.name!r}]({self.var(op.inputs[0], device)})")
            return []
        if op.kind == "assign":
            value, target = (self.var(t, device) for t in op.inputs)
            self.emit(f"{self.bind(torch.ops.aten.copy_.default, 'copy')}({target}, {value})")
            return []
        made = []
        for node in self.program.nodes[op.name]:
            made.append(node.name + self.suffix[device])
            self.emit(f"{made[-1]} = {self.call(node, device)}")
        self.defined.update(made)
        return made

    def call(self, node: fx.Node, device: str) -> str:
        """An fx node as an expression."""
        args = [self.literal(a, device) for a in node.args]
        if node.target is operator.getitem:
            return f"{args[0]}[{args[1]}]"
        args += [f"{k}={self.literal(v, device)}" for k, v in node.kwargs.items()]
        return f"{self.bind(self.kernel(node.target), str(node.target))}({', '.join(args)})"

    def kernel(self, target: Any) -> Any:
        """What to call for an op: the bare kernel where there is one, for the wrapper around it costs time."""
        return getattr(target, "_op", target)

    def literal(self, value: Any, device: str) -> str:
        """An argument as an expression."""
        if isinstance(value, fx.Node):
            return value.name + self.suffix[device]
        if isinstance(value, list):
            return f"[{', '.join(self.literal(v, device) for v in value)}]"
        if isinstance(value, tuple):
            return f"({''.join(self.literal(v, device) + ', ' for v in value)})"
        if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        return self.bind(self.devices[device] if isinstance(value, torch.device) else value, type(value).__name__)

    def bind(self, value: Any, hint: str) -> str:
        """A name for a value that has no literal."""
        key = (type(value), id(value))
        if key not in self.bound:
            name = "".join(c if c.isalnum() else "_" for c in hint).upper() + f"_{len(self.bound)}"
            self.bound[key], self.names[name] = name, value
        return self.bound[key]
