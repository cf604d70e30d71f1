"""`torch.compile(model, backend="baechi")`: found by its entry point, the numbers of eager code, graph breaks and all."""

import copy
import gc
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import fx, nn

from baechi.api import dynamo_backend
from baechi.errors import BaechiError, Infeasible

# torch looks at the .grad of what comes from the first of two graphs.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
OPTIONS = {"cluster": "2x8MiB", "placer": "round-robin"}


class Net(nn.Module):
    """Dropout, batch norm, two layers, and a buffer that is assigned anew."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.drop, self.two = nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One layer after the other."""
        return self.rest(self.one(x))

    def rest(self, h: torch.Tensor) -> torch.Tensor:
        """All but the first layer."""
        result: torch.Tensor = self.two(self.drop(torch.relu(self.norm(h))))
        return result


class Broken(Net):
    """Of two graphs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        torch._dynamo.graph_break()
        return self.rest(h)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(target: Any, **options: Any) -> Any:
    return torch.compile(target, backend=dynamo_backend, options=options or OPTIONS)


def train(model: nn.Module, call: Any, rows: tuple[int, ...]) -> list[float]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for n in rows:
        optimizer.zero_grad()
        loss = call(X[:n]).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_it_is_found_by_name() -> None:
    entry = next(e for e in entry_points(group="torch_dynamo_backends") if e.name == "baechi")
    assert entry.load() is dynamo_backend
    assert "baechi" in torch._dynamo.list_backends()


@pytest.mark.parametrize("cls", [Net, Broken])
@pytest.mark.parametrize("rows", [(6, 6, 6), (6, 3, 4, 6)])
@pytest.mark.parametrize("dynamic", [None, True])
def test_training_and_evaluation_equal_eager(cls: type[Net], rows: tuple[int, ...], dynamic: bool | None) -> None:
    torch.manual_seed(0)
    plain = cls()
    model = copy.deepcopy(plain)
    call = torch.compile(model, backend=dynamo_backend, options=OPTIONS, dynamic=dynamic)
    assert train(model, call, rows) == train(plain, plain, rows)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-6, atol=1e-7)
    plain.eval(), model.eval()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(call(X), plain(X))


def test_all_ops_of_forward_and_backward_are_in_one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from baechi.backends.pytorch import placed

    seen: list[Any] = []
    make = placed.make_forward
    monkeypatch.setattr(
        placed, "make_forward", lambda p, plan, *a, **k: seen.append((p, plan)) or make(p, plan, *a, **k)
    )
    compiled(Net())(X)
    ((program, plan),) = seen
    assert set(plan.device.values()) == {"cpu:0", "cpu:1"}
    assert {op.phase for op in program.graph.ops} >= {"forward", "backward"}
    assert set(program.gradients) == set(program.parameters)
    assert len(program.parameters) == len(list(Net().parameters()))


def test_a_function_that_writes_into_its_input() -> None:
    def bump(x: torch.Tensor) -> torch.Tensor:
        x.add_(1)
        return x * 2

    x = torch.ones(3)
    assert compiled(bump)(x).tolist() == [4, 4, 4]
    assert x.tolist() == [2, 2, 2]


def test_an_optimiser_step() -> None:
    plain = nn.Linear(8, 3)
    model = copy.deepcopy(plain)
    mine, other = (torch.optim.Adam(m.parameters(), lr=0.1) for m in (model, plain))
    step = compiled(mine.step)
    for _ in range(3):
        for m, update in ((model, step), (plain, other.step)):
            m.zero_grad()
            m(X).square().sum().backward()
            update()
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-5)


def test_autocast_around_it_and_in_it() -> None:
    class Cast(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(x)

    for cls in (Net, Cast):
        model = cls().eval()
        call = compiled(copy.deepcopy(model))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(call(X), model(X))
        assert torch.equal(call(X), model(X))


def test_errors_are_errors_of_ours() -> None:
    with pytest.raises(BaechiError, match="no option 'clusters'"):
        compiled(Net(), clusters="2x1GiB")(X)
    with pytest.raises(Infeasible, match="no plan fits"):
        compiled(Net(), cluster="2x100")(X)


def test_disabled_it_runs_the_graph_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_DISABLE", "1")
    model = Net().eval()
    assert torch.equal(compiled(copy.deepcopy(model), cluster="2x100")(X), model(X))


def test_threads_end_with_the_compiled_function() -> None:
    gc.collect()
    before = threading.active_count()
    call = dynamo_backend(fx.symbolic_trace(lambda x: (x.tanh(),)), (X,), options=OPTIONS)
    assert torch.equal(call(X)[0], torch.tanh(X))
    assert threading.active_count() > before
    del call
    gc.collect()
    assert threading.active_count() == before
