"""The asynchronous pipeline against plain torch: at the stashed weights, bit for bit with one stage, within its bounds."""

import copy
import itertools
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baechi.errors import BaechiError
from baechi.replicas.ravnest.pipeline import Batch, Carried, Parcel, run, workers_of
from baechi.replicas.ravnest.stage import Stage
from baechi.replicas.ravnest.threads import run_threads

LOSS = nn.functional.cross_entropy


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def net(seed: int, blocks: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2)) for _ in range(blocks - 1)]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def data(count: int, seed: int = 1) -> list[Batch]:
    g = torch.Generator().manual_seed(seed)
    return [((torch.randn(8, 6, generator=g),), torch.randint(3, (8,), generator=g)) for _ in range(count)]


def staged(module: nn.Sequential, cuts: list[int], **options: Any) -> list[Stage]:
    ends = [0, *cuts, len(module)]
    parts = [module[a:b] for a, b in itertools.pairwise(ends)]
    return [Stage(part, sgd, LOSS if i == len(parts) - 1 else None, **options) for i, part in enumerate(parts)]


def uneven(seed: int) -> Callable[[int, Parcel], float]:
    random = Random(seed)
    return lambda worker, parcel: random.choice((0.2, 1.0, 3.0)) * (1 + worker % 2)


@pytest.mark.parametrize("update_every", [1, 3])
def test_one_stage_is_plain_sgd_bit_for_bit(update_every: int) -> None:
    ours, plain = net(0), net(0)
    batches = data(12)
    torch.manual_seed(5)
    stage = Stage(ours, sgd, LOSS, update_every)
    carried = run(workers_of([stage]), batches)
    torch.manual_seed(5)
    optimizer, losses = sgd(plain.parameters()), []
    for i, ((x,), y) in enumerate(batches):
        loss = LOSS(plain(x), y)
        (loss / update_every if update_every > 1 else loss).backward()
        losses.append(loss.item())
        if (i + 1) % update_every == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert list(carried.losses) == losses
    for (name, a), b in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert stage.staleness == [0] * 12 if update_every == 1 else stage.version == 4


@pytest.mark.parametrize("seed", range(6))
def test_what_is_under_way_is_bounded_and_so_is_staleness(seed: int) -> None:
    cuts = sorted(Random(seed).sample(range(1, 6), seed % 5))
    stages = staged(net(seed, 6), cuts)
    carried = run(workers_of(stages), data(30), uneven(seed), lambda parcel: 0.1 * seed)
    count = len(stages)
    assert carried.most_under_way <= count
    for stage in stages:
        assert len(stage.staleness) == stage.version == 30
        assert 0 <= max(stage.staleness) <= count - 1
        assert stage.outstanding == stage.stashed == 0
    assert set(stages[-1].staleness) == {0}
    assert len(carried.losses) == 30


def test_gradients_are_those_at_the_stashed_weights() -> None:
    """Each backward of a middle stage against plain torch on a copy of the stage taken as it went forward."""
    stages = staged(net(3), [1, 2])
    middle, taken, worst = stages[1], {}, []
    forward, backward = middle.forward, middle.backward

    def watched_forward(micro: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        taken[micro] = (copy.deepcopy(middle.module), inputs, middle._random, middle.version)
        return forward(micro, inputs)

    def watched_backward(micro: int, gradients: tuple[Tensor, ...], *, inward: bool = True) -> tuple[Tensor, ...]:
        module, inputs, random, version = taken[micro]
        x = inputs[0].clone().requires_grad_()
        with torch.random.fork_rng():
            torch.set_rng_state(random)
            module(x).backward(gradients[0])
        applied: dict[str, Tensor] = {}
        middle.optimizer.register_step_pre_hook(  # type: ignore[union-attr]
            lambda *_: applied.update({n: p.grad.clone() for n, p in middle.parameters.items() if p.grad is not None})
        )
        late = middle.version - version
        found = backward(micro, gradients, inward=inward)
        assert torch.equal(found[0], x.grad)  # type: ignore[arg-type]
        for name, parameter in module.named_parameters():
            assert torch.equal(applied[name], parameter.grad)
        worst.append(late)
        return found

    middle.forward, middle.backward = watched_forward, watched_backward  # type: ignore[method-assign]
    run(workers_of(stages), data(20), lambda worker, parcel: 1.0 + worker)
    assert max(worst) == 2


def test_a_step_of_the_gradient_is_a_finite_difference_at_the_stashed_weights() -> None:
    torch.manual_seed(0)
    first = Stage(nn.Linear(2, 2).double(), lambda p: torch.optim.SGD(p, lr=0.5))
    x = torch.randn(3, 2, dtype=torch.float64)
    first.forward(0, (x,))
    first.forward(1, (x,))
    old = first.parameters["weight"].detach().clone()
    first.backward(0, (torch.ones(3, 2, dtype=torch.float64),))
    now = first.parameters["weight"].detach().clone()
    weights = torch.randn(3, 2, dtype=torch.float64)
    first.backward(1, (weights,))
    moved = (now - first.parameters["weight"].detach()) / 0.5
    bias = first.weights(0)["bias"]
    for i in range(2):
        for j in range(2):
            up, down = old.clone(), old.clone()
            up[i, j] += 1e-6
            down[i, j] -= 1e-6
            outputs = [(nn.functional.linear(x, w) * weights).sum() for w in (up, down)]
            assert float(moved[i, j]) == pytest.approx(float((outputs[0] - outputs[1]) / 2e-6), rel=1e-5)
    assert bias is not None
    assert first.staleness == [0, 1]


def test_running_statistics_move_once_for_each_micro_batch() -> None:
    module = net(4)
    stages = staged(module, [2])
    run(workers_of(stages), data(7))
    assert {int(b) for n, b in module.named_buffers() if n.endswith("num_batches_tracked")} == {7}


def test_a_run_is_the_same_each_time() -> None:
    def once() -> tuple[Carried, list[Tensor]]:
        module = net(2)
        torch.manual_seed(9)
        return run(workers_of(staged(module, [1, 2])), data(15), uneven(1)), list(module.parameters())

    (a, weights), (b, again) = once(), once()
    assert a == b
    assert all(torch.equal(x, y) for x, y in zip(weights, again, strict=True))


def test_stages_work_at_the_same_time() -> None:
    def even(worker: int, parcel: Parcel) -> float:
        return 1.0 if worker < 2 and not parcel.is_back else 2.0  # the last does both passes at once

    carried = run(workers_of(staged(net(1), [1, 2])), data(60), even)
    alone = run(workers_of(staged(net(1), [])), data(60), lambda worker, parcel: 8.0)
    assert alone.seconds == 60 * 8
    assert carried.seconds < 60 * 3 * 1.15  # a stage's three seconds for each, and the filling
    assert carried.busy(0) > 0.85
    assert carried.sent_bytes == (60 * 8 * 6 * 4, 2 * 60 * 8 * 6 * 4, 60 * 8 * 6 * 4)


def test_it_learns() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    batches: list[Batch] = [((x[i : i + 32],), y[i : i + 32]) for _ in range(25) for i in range(0, 256, 32)]
    module = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    carried = run(workers_of(staged(module, [2, 4])), batches)
    assert sum(carried.losses[-8:]) < 0.35 * sum(carried.losses[:8])


def test_stages_take_several_tensors_and_whole_numbers() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)

        def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
            return self.table(at), at

    class Join(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 1)

        def forward(self, x: Tensor, at: Tensor) -> Tensor:
            out: Tensor = self.line(x).squeeze(-1) + at
            return out

    torch.manual_seed(0)
    stages = [Stage(Pair(), sgd), Stage(Join(), sgd, nn.functional.mse_loss)]
    before = stages[0].parameters["table.weight"].detach().clone()
    batches: list[Batch] = [((torch.arange(5),), torch.zeros(5))] * 4
    run(workers_of(stages), batches)
    assert not torch.equal(before, stages[0].parameters["table.weight"])


def test_misuse_is_said() -> None:
    last, other = Stage(nn.Linear(2, 2), sgd, LOSS), Stage(nn.Linear(2, 2), sgd)
    for stages in ([], [other], [last, last], [last, other]):
        with pytest.raises(BaechiError) as error:
            workers_of(stages)
        assert error.value.code == "B858"
    with pytest.raises(BaechiError, match="different numbers"):
        workers_of([other, Stage(nn.Linear(2, 2), sgd, LOSS, 2)])
    with pytest.raises(BaechiError, match="did not pass"):
        other.backward(3, (torch.ones(1, 2),))
    with pytest.raises(BaechiError, match="no loss"):
        other.finish(0, (torch.ones(1, 2),), None)
    with pytest.raises(BaechiError):
        Stage(nn.Linear(2, 2), sgd, LOSS, 0)


def test_threads_do_one_stage_bit_for_bit() -> None:
    results = []
    for carry in (run, run_threads):
        module = net(0)
        torch.manual_seed(5)
        stage = Stage(module, sgd, LOSS)
        results.append((carry(workers_of([stage]), data(8)).losses, module.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1].values(), results[1][1].values(), strict=True))


@pytest.mark.parametrize("draws", [True, False])
def test_threads_keep_the_bounds(draws: bool) -> None:
    module = net(1, 6)
    stages = staged(module, [1, 3, 4], draws=draws)
    carried = run_threads(workers_of(stages, under_way=3), data(40))
    assert carried.most_under_way <= 3
    assert all(s.version == 40 and max(s.staleness) <= 2 for s in stages)
    assert len(carried.losses) == 40
    assert len(carried.spans) == 40 * 7
    assert all(p.isfinite().all() for p in module.parameters())


def test_an_error_in_a_thread_is_raised_here() -> None:
    stages = staged(net(1), [1, 2])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run_threads(workers_of(stages), [((torch.ones(8, 5),), torch.zeros(8, dtype=torch.long))] * 4)


def test_fewer_under_way_are_less_stale() -> None:
    stages = staged(net(2), [1, 2])
    assert run(workers_of(stages, under_way=1), data(10)).most_under_way == 1
    assert all(set(stage.staleness) == {0} for stage in stages)
    for bad in (0, 4):
        with pytest.raises(BaechiError):
            workers_of(stages, under_way=bad)


def test_one_under_way_is_plain_training_over_all_stages() -> None:
    """Nothing is stale, and only dropout draws from other streams: without it the stages are the whole model."""
    ours, plain = (nn.Sequential(*[m for block in net(6)[:3] for m in block[:3]], nn.Linear(6, 3)) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    run(workers_of(staged(ours, [3, 6]), under_way=1), data(10))
    optimizer = sgd(plain.parameters())
    for (x,), y in data(10):
        optimizer.zero_grad()
        LOSS(plain(x), y).backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)
