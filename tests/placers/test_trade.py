"""Time for memory: where nothing fits as it is, recomputation or offloading is found that does."""

from dataclasses import replace

import pytest

from baechi.cost import Problem
from baechi.errors import BaechiError, Infeasible
from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.verify import verify
from baechi.passes import offloadable
from baechi.passes.checkpoints import Activations
from baechi.passes.lighten import Lighten
from baechi.placers import Etf, Placer, Single, make_plan
from baechi.placers.spare import could_help
from baechi.placers.trade import lighter

LAYERS, NBYTES = 16, 1000


def chain() -> Graph:
    """Layers in modules of two ops: a dear one and a cheap one; backward reads what both make."""
    ops = [Op("x", "input", outputs=(Tensor("x", 0),), seconds=0.0)]
    for i in range(LAYERS):
        module, before = f"layers.{i}", f"h{i - 1}" if i else "x"
        ops.append(Op(f"f{i}", "mm", (before,), (Tensor(f"y{i}", NBYTES),), seconds=1.0, module=module))
        ops.append(Op(f"r{i}", "relu", (f"y{i}",), (Tensor(f"h{i}", NBYTES),), seconds=0.1, module=module))
    gradient = ""
    for i in reversed(range(LAYERS)):
        ops.append(_back(f"br{i}", (f"y{i}", *([gradient] if gradient else [])), f"e{i}", f"r{i}"))
        before = f"h{i - 1}" if i else "x"
        gradient = f"d{i}"
        ops.append(_back(f"bf{i}", (before, f"e{i}"), gradient, f"f{i}", keep=i == 0))
    return Graph(tuple(ops))


def _back(name: str, inputs: tuple[str, ...], makes: str, twin: str, keep: bool = False) -> Op:
    return Op(name, "back", inputs, (Tensor(makes, 0, keep=keep),), phase="backward", seconds=1.0, forward=twin)


def problem(share: float, devices: int = 1, rate: float = 1e5) -> Problem:
    whole = 2 * LAYERS * NBYTES
    caps = [Device(f"d{i}", int(share * whole), bytes_per_second=rate) for i in range(devices)]
    return Problem(chain(), Cluster(tuple(caps)))


@pytest.mark.parametrize("placer", [Single(), Etf()])
@pytest.mark.parametrize(("recompute", "offload"), [("auto", "off"), ("off", "auto"), ("auto", "auto")])
@pytest.mark.parametrize("share", [0.85, 0.5])
def test_a_plan_where_there_is_none_without(placer: Placer, recompute: str, offload: str, share: float) -> None:
    given = problem(share)
    with pytest.raises(Infeasible):
        lighter(given, placer)
    found = lighter(given, placer, recompute=recompute, offload=offload)
    assert verify(found.graph, found.plan) == ()
    assert found.made(given.graph).digest == found.graph.digest == found.plan.graph
    assert bool(found.made.recompute) <= (recompute == "auto")
    assert bool(found.made.offload) <= (offload == "auto")
    work = sum(op.seconds or 0.0 for op in given.graph.ops)
    assert work < found.plan.predicted.step_seconds < 1.5 * work
    assert lighter(given, placer, recompute=recompute, offload=offload).made == found.made


def test_the_cheap_ops_are_run_again_first() -> None:
    """A little short of memory, the relus are enough: none of the ops that take ten times as long."""
    found = lighter(problem(0.85), Single(), recompute="auto")
    assert all(name.startswith("r") for name in found.made.recompute)
    # Each spares one of 32 tensors, and 27 fit.
    assert 5 <= len(found.made.recompute) <= 7


def test_with_both_allowed_the_cheaper_one_is_taken() -> None:
    slow, fast = (lighter(problem(0.8, rate=rate), Single(), recompute="auto", offload="auto") for rate in (1e3, 1e7))
    assert slow.made.recompute
    assert not slow.made.offload
    assert fast.made.offload
    assert not fast.made.recompute


def test_what_fits_on_one_device_is_left_alone() -> None:
    found = lighter(problem(1.1), Single(), recompute="auto", offload="auto")
    assert found.graph.digest == chain().digest


def test_two_devices_that_are_cramped_do_no_worse_with_it() -> None:
    given = problem(0.52, 2)
    plain = lighter(given, Etf()).plan.predicted.step_seconds
    assert lighter(given, Etf(), recompute="auto").plan.predicted.step_seconds <= plain


def test_a_pattern_keeps_what_leaves_each_module() -> None:
    found = lighter(problem(1.1), Single(), recompute="layers.*")
    last = f"r{LAYERS - 1}"  # nobody reads what it makes
    assert found.made.recompute == (*(f"f{i}" for i in range(LAYERS)), last)
    half = lighter(problem(1.1), Single(), recompute="layers.[0-3]")
    assert half.made.recompute == ("f0", "f1", "f2", "f3")


def test_cuts_are_where_little_crosses() -> None:
    known = Activations(chain(), lambda op: op.seconds or 0.0)
    assert known.total_bytes == (2 * LAYERS - 1) * NBYTES  # the last relu's result is read by nobody
    cuts = known.cuts(8 * NBYTES)
    assert len(cuts) >= 3
    segments = known.segments(8 * NBYTES)
    kept = set(offloadable(chain())) - {t.name for s in segments for n in s.ops for t in chain().op[n].outputs}
    assert sum(s.nbytes for s in segments) == known.total_bytes - NBYTES * len(kept)


@pytest.mark.parametrize(
    ("recompute", "offload", "code"), [("off", "disk", "B111"), ("encoder.*", "off", "B112"), ("off", "auto", "B111")]
)
def test_bad_wishes(recompute: str, offload: str, code: str) -> None:
    given = problem(1.1)
    board = replace(given.cluster, devices=(replace(given.cluster.devices[0], host_bytes_per_second=0.0),))
    with pytest.raises(BaechiError) as raised:
        lighter(replace(given, cluster=board), Single(), recompute=recompute, offload=offload)
    assert raised.value.code == code


def _graph(saved: int, own: int, persistent: int) -> Graph:
    """An op whose result backward needs, with an op of its own working memory between the two."""
    ops = (
        Op("x", "input", outputs=(Tensor("x", 0),), persistent_bytes=persistent),
        Op("f", "mm", ("x",), (Tensor("y", saved),), seconds=1.0),
        Op("g", "mm", ("y",), (Tensor("z", 1),), seconds=1.0),
        Op("h", "mm", ("z",), (Tensor("w", 1),), seconds=1.0, temp_bytes=own),
        Op("b", "back", ("w", "y"), (Tensor("d", 0, keep=True),), phase="backward", seconds=1.0, forward="f"),
    )
    return Graph(ops)


@pytest.mark.parametrize(
    ("saved", "own", "persistent", "helps"),
    [
        (60, 60, 0, ("recompute", "offload")),  # y waits while h works; without it 62 bytes
        (60, 101, 0, ()),  # h alone is too much
        (60, 60, 101, ()),  # what persists stays
        (101, 0, 0, ()),  # y alone is too much
    ],
)
def test_less_is_kept_only_where_that_undoes_the_proof(
    saved: int, own: int, persistent: int, helps: tuple[str, ...]
) -> None:
    device = Device("d", 100)
    given = Problem(_graph(saved, own, persistent), Cluster((device,)))
    with pytest.raises(Infeasible, match="no plan fits"):
        lighter(given, Single())
    assert could_help(given) == helps
    for lighten in (Lighten(recompute=("f",)), Lighten(offload=("y",))):
        lighter_one = replace(given, graph=lighten(given.graph))
        if helps:
            assert make_plan(Single(), lighter_one, 0).predicted.peak_bytes["d"] <= 100
        else:
            with pytest.raises(Infeasible):
                make_plan(Single(), lighter_one, 0)
    board = Problem(given.graph, Cluster((replace(device, host_bytes_per_second=0.0),)))
    assert could_help(board) == helps[:1]


def test_a_step_without_a_backward_pass_is_not_helped() -> None:
    ops = (Op("f", "mm", (), (Tensor("y", 60),)), Op("g", "mm", ("y",), (Tensor("z", 60, keep=True),)))
    assert could_help(Problem(Graph(ops), Cluster((Device("d", 100),)))) == ()
