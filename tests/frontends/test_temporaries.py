"""What a call is said to hold beside its inputs and results is what torch's own allocator reports."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.fx.experimental.proxy_tensor import make_fx

from baechi.frontends.pytorch.temporaries import temp_bytes

aten = torch.ops.aten
rand = torch.randn
one_dnn = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX2", reason="oneDNN's layouts are measured on AVX2"
)
STRIDED = rand(4, 128, 20, 20)[:, :64]
DENSE = STRIDED.contiguous()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _said(call: Callable[..., Any], *inputs: Tensor) -> int:
    graph = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs).graph
    return max(temp_bytes(node) for node in graph.nodes if node.op == "call_function")


def _held(call: Callable[..., Any], *inputs: Tensor) -> int:
    """The most that is allocated at once less what is left at the end: the results."""
    call(*inputs)
    with profile(use_kineto=False, profile_memory=True) as profiler:
        results = call(*inputs)
    events = profiler.kineto_results.experimental_event_tree()
    changes = []
    while events:
        event = events.pop()
        if event.name == "[memory]":
            changes.append((event.start_time_ns, len(changes), event.extra_fields.alloc_size))
        events += event.children
    live = peak = 0
    for _, _, nbytes in sorted(changes):
        live += nbytes
        peak = max(peak, live)
    del results
    return peak - live


def _convolution(
    shape: tuple[int, ...],
    channels: int,
    window: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    **options: Any,
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    spatial = len(shape) - 2
    transposed = options.get("transposed", False)
    of = (shape[1], channels) if transposed else (channels, shape[1] // groups)
    x, w = rand(shape), rand(*of, *[window] * spatial)
    if options.get("channels_last"):
        x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
    rest = ([stride] * spatial, [padding] * spatial, [1] * spatial, transposed, [0] * spatial, groups)
    mask = options.get("mask", [True, True, False])

    def forward(x: Tensor, w: Tensor) -> Tensor:
        return aten.convolution(x, w, None, *rest)

    def backward(y: Tensor, x: Tensor, w: Tensor) -> Any:
        return aten.convolution_backward(y, x, w, None, *rest, mask)

    return forward, backward, (x, w), (torch.randn_like(forward(x, w)), x, w)


@one_dnn
@pytest.mark.parametrize(
    "arguments",
    [
        ((4, 96, 35, 35), 96, 3, 2),
        ((16, 288, 35, 35), 48, 1),
        ((4, 288, 35, 35), 48, 1, 2),
        ((4, 64, 35, 35), 96, 3, 1, 1),
        ((4, 288, 35, 35), 384, 3, 2),
        ((8, 128, 56, 56), 128, 3, 2, 1),
        ((4, 96, 8, 8), 1024, 3, 1, 1),
        ((8, 512, 4, 4), 1024, 3, 1, 1),
        ((4, 96, 35, 35), 96, 3, 1, 1, 96),
        ((4, 96, 35, 35), 96, 3, 1, 1, 4),
        ((4, 96, 350), 96, 3, 1, 1),
        ((1, 160, 20, 20), 32, 3, 1, 1),
    ],
)
@pytest.mark.parametrize("mask", [[True, True, False], [True, False, False], [False, True, False]])
def test_a_convolution_lays_its_operands_out_anew(arguments: tuple[Any, ...], mask: list[bool]) -> None:
    forward, backward, read, also = _convolution(*arguments, mask=mask)
    assert _said(forward, *read) == _held(forward, *read)
    assert _said(backward, *also) == pytest.approx(_held(backward, *also), rel=0.01)


@one_dnn
def test_a_transposed_convolution_is_one_backward() -> None:
    forward, backward, read, also = _convolution((4, 96, 35, 35), 48, 2, 2, transposed=True)
    assert _said(forward, *read) == _held(forward, *read)
    assert _said(backward, *also) == _held(backward, *also)


@one_dnn
def test_an_image_is_read_as_it_is() -> None:
    forward, backward, read, also = _convolution((4, 3, 99, 99), 32, 3, 2, mask=[False, True, False])
    assert _said(forward, *read) == _held(forward, *read)
    assert _said(backward, *also) == _held(backward, *also)


@one_dnn
def test_of_what_is_in_channels_last_order_only_the_weight_is_copied() -> None:
    forward, backward, read, also = _convolution((4, 96, 35, 35), 96, 3, 1, 1, channels_last=True)
    assert _said(forward, *read) == pytest.approx(_held(forward, *read), rel=0.05)
    assert _said(backward, *also) == pytest.approx(_held(backward, *also), rel=0.05)


@pytest.mark.parametrize(
    "arguments",
    [
        ((4, 288, 35, 35), 48, 1),
        ((15, 32, 9, 9), 48, 1),
        ((1, 160, 20, 20), 32, 1),
        ((1, 16, 10, 10), 32, 3, 1, 1),
        ((1, 16, 10, 10), 32, 3),
    ],
)
def test_a_plain_product_unfolds_its_windows(arguments: tuple[Any, ...]) -> None:
    """A window of one element needs no unfolding."""
    forward, backward, read, also = _convolution(*arguments)
    assert _said(forward, *read) == _held(forward, *read)
    assert (_said(forward, *read) == 0) == (arguments[2] == 1)
    assert _said(backward, *also) == _held(backward, *also)


@one_dnn
def test_what_is_not_contiguous_is_copied_before_it_is_laid_out() -> None:
    forward, backward, (x, w), (gradient, *_) = _convolution((4, 64, 35, 35), 96, 3, 1, 1)
    apart = torch.cat([x, x], 1)[:, :64]
    for given in (gradient[:, :, :1, :1].expand_as(gradient), torch.cat([gradient, gradient], 1)[:, 96:]):
        assert _said(backward, given, x, w) == _held(backward, given, x, w)
        assert _said(backward, given, apart, w) == _held(backward, given, apart, w)
    assert _said(forward, apart, w) == _held(forward, apart, w)


PARTS = torch.zeros(4, 64, 20, 20, dtype=torch.int64)
SCALE = torch.ones(64)
KINDS: dict[str, Callable[[Tensor], Any]] = {
    "max pool": lambda x: aten.max_pool2d_with_indices(x, [3, 3], [1, 1], [1, 1]),
    "max pool, backward": lambda x: aten.max_pool2d_with_indices_backward(
        x, DENSE, [3, 3], [1, 1], [1, 1], [1, 1], False, PARTS
    ),
    "average pool": lambda x: aten.avg_pool2d(x, [3, 3], [1, 1], [1, 1]),
    "average pool, backward": lambda x: aten.avg_pool2d_backward(
        x, DENSE, [3, 3], [1, 1], [1, 1], False, True, None
    ),
    "adaptive pool": lambda x: aten._adaptive_avg_pool2d(x, [10, 10]),
    "adaptive pool, backward": lambda x: aten._adaptive_avg_pool2d_backward(x, DENSE),
    "layer norm": lambda x: aten.native_layer_norm(x, [20], None, None, 1e-5),
    "softmax": lambda x: aten._softmax(x, 1, False),
    "softmax, backward": lambda x: aten._softmax_backward_data(x, DENSE, 1, torch.float32),
    "log softmax, backward": lambda x: aten._log_softmax_backward_data(x, DENSE, 1, torch.float32),
    "gelu, backward": lambda x: aten.gelu_backward(x, DENSE),
    "batch norm, backward": lambda x: aten.native_batch_norm_backward(
        x, DENSE, SCALE, SCALE, SCALE, SCALE, SCALE, True, 1e-5, [True] * 3
    ),
    "relu": aten.relu,
    "sum": lambda x: aten.sum(x, [0]),
}  # fmt: skip


@pytest.mark.parametrize(
    "x", [STRIDED, DENSE, DENSE[:, :, :1, :1].expand_as(DENSE)], ids=["strided", "dense", "expanded"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_contiguous_is_copied_by_some(kind: str, x: Tensor) -> None:
    assert _said(KINDS[kind], x) == pytest.approx(_held(KINDS[kind], x), abs=4000)
