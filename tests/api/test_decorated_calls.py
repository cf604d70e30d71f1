"""What a placed module takes and returns, when it is planned anew, and what it says and leaves behind."""

import copy
import dataclasses
import functools
import gc
import io
import logging
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import baechi
from baechi.errors import BaechiError

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
OPTIONS = {"cluster": "2x8MiB", "placer": "round-robin"}


@dataclasses.dataclass
class Pair:
    """Two tensors and a note."""

    one: torch.Tensor
    two: torch.Tensor | None = None
    note: str = "none"


class Opaque:
    """Holds tensors where torch does not look."""

    def __init__(self, x: Any) -> None:
        self.x = x


class Layer(nn.Module):
    """A layer, and whatever is done with it."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.body = nn.Linear(8, 3), body

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the body on the layer."""
        return self.body(self.layer, *args, **kwargs)


def pair(body: Callable[..., Any]) -> tuple[Layer, Any]:
    torch.manual_seed(0)
    plain = Layer(body)
    return plain, baechi.place(copy.deepcopy(plain), **OPTIONS)


def many(
    layer: nn.Module, x: torch.Tensor, y: Any = None, *, times: int = 1, extra: Any = None, flag: bool = True
) -> Any:
    out = layer(x) * times
    if y is not None:
        out = out + y
    if extra:
        out = out + extra["tensors"][0]
    return (out, {"flag": flag, "nothing": None, "name": "layer"}, [x, times]) if flag else out


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X,), {}),
        ((X, Y), {"times": 3}),
        ((X,), {"y": Y, "flag": False}),
        ((X, None), {"extra": {"tensors": (Y, Y)}, "times": 2}),
    ],
)
def test_inputs_and_results_of_all_sorts(args: Any, kwargs: Any) -> None:
    plain, placed = pair(many)
    for found, expected in zip(leaves(placed(*args, **kwargs)), leaves(plain(*args, **kwargs)), strict=True):
        assert type(found) is type(expected)
        if isinstance(found, torch.Tensor):
            torch.testing.assert_close(found, expected)
        else:
            assert found == expected


def leaves(value: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value)


def test_one_placed_module_takes_all_of_them_in_turn() -> None:
    plain, placed = pair(many)
    for _ in range(2):
        for times in (1, True, 2):
            assert torch.equal(placed(X, times=times)[0], plain(X, times=times)[0])
            assert placed(X, times=times)[2][1] is times
    assert len(placed.baechi.plans) == 3


def test_dataclasses_go_in_and_out() -> None:
    def body(layer: nn.Module, given: Pair) -> Pair:
        return Pair(layer(given.one), None, given.note + "!")

    plain, placed = pair(body)
    for x in (X, X + 1):
        found, expected = placed(Pair(x)), plain(Pair(x))
        assert isinstance(found, Pair)
        assert found.note == "none!"
        torch.testing.assert_close(found.one, expected.one)
    found.one.sum().backward()
    assert placed.layer.weight.grad is not None
    assert len(placed.baechi.plans) == 1


def test_objects_that_hold_tensors_go_in_and_out() -> None:
    plain, placed = pair(lambda layer, given: (layer(given.x), Opaque([given.x * 2, {"y": layer(given.x)}])))
    for x in (X, X + 1):
        (found, held), (expected, other) = placed(Opaque(x)), plain(Opaque(x))
        assert isinstance(held, Opaque)
        torch.testing.assert_close((found, held.x), (expected, other.x))
    assert len(placed.baechi.plans) == 1


def test_a_language_model_trains_and_generates_with_its_cache() -> None:
    """Its outputs hold a cache object, which `generate` hands in again."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=16, bos_token_id=0, eos_token_id=None
    )
    torch.manual_seed(0)
    plain = transformers.GPT2LMHeadModel(config)
    placed = baechi.place(copy.deepcopy(plain), **OPTIONS)
    ids = torch.arange(10).reshape(2, 5)
    for model in (plain, placed):
        torch.manual_seed(1)
        model.train()(input_ids=ids, labels=ids).loss.backward()
    for mine, other in zip(placed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    tokens = [m.eval().generate(ids[:1], max_new_tokens=2, do_sample=False, pad_token_id=0) for m in (plain, placed)]
    assert torch.equal(*tokens)
    assert len(placed.baechi.plans) == 3


def test_what_cannot_be_taken_apart_is_refused() -> None:
    class Local(Opaque):
        pass

    taking, giving = pair(lambda layer, o: layer(o.x))[1], pair(lambda layer, x: Local(layer(x)))[1]
    for call in (lambda: taking(Local(X)), lambda: giving(X), lambda: taking(nn.Linear(1, 1))):
        with pytest.raises(BaechiError, match="holds tensors") as error:
            call()
        assert error.value.code == "B608"


def test_the_value_of_an_array_counts_to_the_last_number() -> None:
    plain, placed = pair(lambda layer, x, array: layer(x) * float(array.sum()))
    array = np.zeros(5000)
    for i in range(3):
        array[2500] = i
        assert torch.equal(placed(X, array), plain(X, array))


def test_what_is_computed_without_gradients_or_parameters() -> None:
    assert pair(lambda layer, x: 3)[1](X) == 3
    assert pair(lambda layer, x: None)[1](X) is None
    out = pair(lambda layer, x: (x, x.argmax(1), layer(x)))[1](X)
    assert [o.requires_grad for o in out] == [False, False, True]


def test_a_new_kind_of_call_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    placed = pair(lambda layer, x: layer(x))[1]
    with caplog.at_level(logging.INFO, "baechi"):
        for _ in range(2):
            for x in (X, X[:2], X.double().float()):
                placed(x)
        placed.eval()(X)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            placed(X)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "baechi: Layer is planned"),
        ("WARNING", "baechi: Layer is planned anew for inputs (2, 8): plan 2"),
        (
            "WARNING",
            "baechi: Layer is planned anew for a changed module (its mode, attributes, hooks or weights): plan 3",
        ),
        ("WARNING", "baechi: Layer is planned anew for another autocast: plan 4"),
    ]


def test_pinned_plans_one_for_each_kind(tmp_path: Path) -> None:
    paths = []
    for training in (True, False):
        paths.append(str(tmp_path / f"{training}.json"))
        baechi.plan(nn.Linear(8, 3).train(training), (X[: 2 + training],), cluster="2x1MiB").save(paths[-1])
    model = baechi.place(nn.Linear(8, 3), pin=paths)
    assert torch.equal(model(X[:3]), nn.functional.linear(X[:3], model.weight, model.bias))
    assert model.eval()(X[:2]).shape == (2, 3)
    with pytest.raises(BaechiError, match="another step") as error:
        model(X)
    assert error.value.code == "B402"
    assert len(model.baechi.plans) == 2


def test_an_applied_plan_is_for_the_call_that_was_planned() -> None:
    """In eval mode, dropout would still drop."""
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5))
    placed = baechi.plan(model, (X,), cluster="2x1MiB")
    placed.apply(model)
    model(X)
    for call in (lambda: model.eval()(X), lambda: model.train()(X[:2])):
        with pytest.raises(BaechiError, match="another step"):
            call()
    twin = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5))
    placed.apply(twin)
    assert twin(X).shape == (6, 3)


def test_copies_of_a_placed_instance_are_plain() -> None:
    model = baechi.place(nn.Linear(8, 3), **OPTIONS)
    model(X)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert other.baechi is None
        assert torch.equal(other(X), model(X))
        assert other.baechi is None


def test_disabled_later_and_enabled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, placed = pair(lambda layer, x: layer(x))
    for value, plans in (("1", 0), ("", 1), ("1", 1), ("0", 1)):
        monkeypatch.setenv("BAECHI_DISABLE", value)
        assert torch.equal(placed(X), plain(X))
        assert len(placed.baechi.plans) == plans


def test_plans_share_threads_which_end_with_the_module() -> None:
    gc.collect()
    before = threading.active_count()
    placed = pair(lambda layer, x: layer(x))[1]
    placed(X).sum().backward()
    one = threading.active_count()
    for rows in range(1, 5):
        placed(X[:rows]).sum().backward()
    assert threading.active_count() == one > before
    del placed
    gc.collect()
    assert threading.active_count() == before


def test_two_threads_may_call_one_module() -> None:
    plain, placed = pair(lambda layer, x: layer(x))
    found: list[torch.Tensor] = []

    def serve(x: torch.Tensor) -> None:
        for _ in range(20):
            found.append(placed(x) - plain(x))

    threads = [threading.Thread(target=serve, args=(x,)) for x in (X, X[:2], X)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 60
    assert all(not error.any() for error in found)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(BaechiError, match="was given a partial") as error:
        baechi.place(functools.partial(print))
    assert error.value.code == "B107"
