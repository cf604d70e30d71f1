"""What the CPU kernels of torch hold beside their inputs and results, as 2.13 was measured to allocate it on one thread."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

__all__ = ["temp_bytes"]

aten = torch.ops.aten

_ONE_MORE = {aten.native_dropout, aten.native_dropout_backward}
_COPYING = {
    aten.max_pool2d_with_indices, aten.max_pool2d_with_indices_backward, aten.avg_pool2d, aten.avg_pool2d_backward,
    aten._adaptive_avg_pool2d, aten._adaptive_avg_pool2d_backward, aten.native_layer_norm, aten._softmax,
    aten._softmax_backward_data, aten._log_softmax, aten._log_softmax_backward_data, aten.gelu_backward,
}  # fmt: skip
_REDUCED = {torch.bfloat16, torch.float16}  # what oneDNN computes in beside float32
_MANY = 16  # a batch of so many is never left to the plain product
_IMAGE = 3
_FEW = 20480  # elements of a single sample that are not worth laying out


def temp_bytes(node: fx.Node) -> int:
    """Bytes that a call's kernel needs beside its inputs and results.

    - A convolution lays its operands out anew (`_Convolution`).
    - Dropout and its backward hold one more tensor like their first argument, and so does batch norm's backward where
      all that it reads is contiguous.
    - Convolutions, pooling, softmax, layer norm and the backward of GELU copy what is not contiguous.

    Other calls need little and count as nothing.
    """
    packet = getattr(node.target, "overloadpacket", None)
    if packet is aten.convolution:
        return _copied(node) + _Convolution.of(node.args).forward(_value(node))
    if packet is aten.convolution_backward:
        gradient, *operands = node.args
        mask: Any = node.args[10]
        return _copied(node) + _Convolution.of(operands).backward(_value(gradient), mask[0], mask[1])
    if packet in _ONE_MORE:
        return _value(node.args[0]).nbytes
    if packet is aten.native_batch_norm_backward:
        read = [_value(argument) for argument in node.args[:2]]
        return read[0].nbytes if all(t.is_contiguous() for t in read) else 0
    return _copied(node) if packet in _COPYING else 0


def _copied(node: fx.Node) -> int:
    read = [_value(n) for n in node.all_input_nodes]
    return sum(t.nbytes for t in read if not (t.is_contiguous() or _is_channels_last(t)))


class _Convolution(NamedTuple):
    """A convolution of `x` with `w`.

    oneDNN's kernels work on copies of their operands in a layout of its own, and their result is copied out of it; the
    gradient of an input that windows do not cover evenly is copied once more. Of an image (three channels) no copy
    is made, and of what is in channels-last order only one of the weight. The plain kernel, which takes what oneDNN is
    not asked for, holds the unfolded input instead, and for a window of one element nothing.
    """

    x: Tensor
    w: Tensor
    is_strided: bool
    is_padded: bool
    is_dilated: bool
    is_transposed: bool
    groups: int

    @classmethod
    def of(cls, arguments: Any) -> "_Convolution":
        """From the arguments of ``aten.convolution``; the last of ``aten.convolution_backward`` are the same."""
        x, w, _, stride, padding, dilation, transposed, _, groups = arguments[:9]
        windows = any(n != 1 for n in stride), any(n != 0 for n in padding), any(n != 1 for n in dilation)
        return cls(_value(x), _value(w), *windows, transposed, groups)

    def forward(self, y: Tensor) -> int:
        """Beside the result `y`."""
        if self._is_plain:
            return self._unfolded(y)
        if _is_channels_last(self.x):
            return self.w.nbytes
        if self.is_transposed:
            return self._spread(self.x, y) - y.nbytes
        return max(self._anew + self.w.nbytes, y.nbytes)

    def backward(self, gradient: Tensor, of_x: bool, of_w: bool) -> int:
        """Beside the gradients of the input and of the weight, as far as they are asked for."""
        if self._is_plain:
            return self._unfolded(gradient)
        x, w = of_x * self.x.nbytes, self.w.nbytes
        if _is_channels_last(self.x):
            return 2 * w
        first = 0
        if of_x:
            like = max(gradient.nbytes + w + x, 2 * x)
            first = like if self.is_transposed else self._spread(gradient, self.x)
        then = x + max(gradient.nbytes + self._anew + w, 2 * w) if of_w else 0
        return max(first, then) - x - of_w * w

    def _spread(self, read: Tensor, made: Tensor) -> int:
        """What a product holds in which each element of what is read goes to a window of what is made."""
        copies = 3 if self.is_strided else 2
        return max(read.nbytes + self.w.nbytes + made.nbytes, copies * made.nbytes)

    @property
    def _anew(self) -> int:
        return 0 if self.x.shape[1] == _IMAGE else self.x.nbytes

    @property
    def _is_plain(self) -> bool:
        if self.is_transposed:
            return False
        if self.x.dtype is not torch.float32:
            return self.x.dtype not in _REDUCED
        window = self.w.shape[2:]
        is_small = len(self.x) == 1 and self.groups == 1 and self.x.numel() <= _FEW and not min(window) > 3
        is_product = all(n == 1 for n in window) and len(self.x) < _MANY and not (self.is_strided or self.is_dilated)
        return is_small or is_product

    def _unfolded(self, y: Tensor) -> int:
        if all(n == 1 for n in self.w.shape[2:]) and not (self.is_strided or self.is_padded):
            return 0
        return self.w[0].numel() * (y.numel() // y.shape[1]) * y.element_size()


def _value(node: Any) -> Tensor:
    value: Tensor | list[Tensor] | tuple[Tensor, ...] = node.meta["val"]
    return value if isinstance(value, Tensor) else value[0]


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
