"""What the verifier says of plans that are right, and of plans with one thing wrong."""

from dataclasses import replace

import pytest

from baechi.ir.cluster import Cluster, Device
from baechi.ir.graph import Graph
from baechi.ir.op import Op, Tensor
from baechi.ir.plan import Bounds, Placed, Plan, Prediction
from baechi.ir.verify import verify

TWO = Cluster((Device("p", 100), Device("q", 100)))
GRAPH = Graph(
    (
        Op("a", "op", outputs=(Tensor("x", 1), Tensor("y", 1)), group="g"),
        Op("b", "op", ("x",), outputs=(Tensor("z", 1),), group="h"),
        Op("c", "op", ("x", "z"), group="g"),
        Op("d", "op", after=("b",), group="h"),
        Op("e", "op", ("y",)),
    )
)
GOOD = Plan(
    GRAPH.digest,
    {},
    TWO,
    Placed("hand"),
    {"a": "p", "b": "q", "c": "p", "d": "q", "e": "q"},
    {"p": ("a", "c"), "q": ("b", "d", "e")},
    (("x", "p", "q"), ("z", "q", "p"), ("y", "p", "q")),
    Prediction(1.0, {"p": 100, "q": 3}),
    Bounds(),
)
DEVICE, SENT = dict(GOOD.device), GOOD.transfers


def changed(**changes: object) -> tuple[str, ...]:
    return verify(GRAPH, replace(GOOD, **changes))  # type: ignore[arg-type]


def test_a_right_plan_breaks_nothing() -> None:
    assert verify(GRAPH, GOOD) == ()
    assert verify(Graph(()), replace(GOOD, graph=Graph(()).digest, device={}, order={}, transfers=())) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"graph": "other"}, f"same graph: the plan is for graph other, this is {GRAPH.digest}"),
        ({"device": {n: d for n, d in DEVICE.items() if n != "e"}}, "every op on a device: op 'e' has no device"),
        ({"device": DEVICE | {"f": "p"}}, "every op on a device: 'f' is no op of the graph"),
        ({"device": DEVICE | {"e": "r"}}, "every op on a device: op 'e' is on 'r', which is no device of the cluster"),
        (
            {"order": {"p": ("a", "c", "e"), "q": ("b", "d")}},
            "every op once in an order: op 'e' is 1 times in the order of p, its device is q",
        ),
        ({"order": {"p": ("a", "c"), "q": ("b", "d")}}, "every op once in an order: op 'e' is not in the order of q"),
        (
            {"order": {"p": ("a", "c", "c"), "q": ("b", "d", "e")}},
            "every op once in an order: op 'c' is 2 times in the order of p, its device is p",
        ),
        ({"device": DEVICE | {"d": "p"}}, "groups together: group 'h' is spread over p, q"),
        ({"transfers": SENT[1:]}, "every read is local or sent: 'x' is read on q and never sent there from p"),
        ({"transfers": (*SENT, SENT[0])}, "every read is local or sent: 'x' is sent 2 times from p to q, needed 1"),
        (
            {"transfers": (*SENT, ("y", "p", "p"))},
            "every read is local or sent: 'y' is sent 1 times from p to p, needed 0",
        ),
        (
            {"transfers": (("x", "q", "q"), *SENT[1:])},
            "every read is local or sent: 'x' is sent 1 times from q to q, needed 0",
        ),
        (
            {"transfers": (*SENT, ("w", "p", "q"))},
            "every read is local or sent: 'w' is sent 1 times from p to q, needed 0",
        ),
        (
            {"order": {"p": ("c", "a"), "q": ("b", "d", "e")}},
            "no deadlock: the orders of the devices wait for each other, at op 'a' for one",
        ),
        (
            {"order": {"p": ("a", "c"), "q": ("d", "b", "e")}},
            "no deadlock: the orders of the devices wait for each other, at op 'b' for one",
        ),
        (
            {"order": {"p": ("a", "c"), "q": ("b", "f", "d", "e")}},
            "no deadlock: the orders of the devices wait for each other, at op 'd' for one",
        ),
        (
            {"order": {"p": ("a", "c", "c"), "q": ("b", "d", "e")}},
            "no deadlock: the orders of the devices wait for each other, at op 'c' for one",
        ),
        ({"predicted": Prediction(1.0, {"p": 101})}, "memory: memory[p]: predicted 101 B, the cap is 100 B"),
    ],
)
def test_each_violation_is_named(changes: dict[str, object], said: str) -> None:
    assert said in changed(**changes)
