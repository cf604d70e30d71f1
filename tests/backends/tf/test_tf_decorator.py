"""`baechi.place` over and under `tf.function` and on a Keras model: the loop around it does not notice."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import baechi
from baechi.errors import BaechiError
from baechi.ir.json import write_plan

OPTIONS: dict[str, Any] = {"cluster": "2x1MiB", "placer": "round-robin"}
from tests.backends.tf.net import STEPS, Trained, as_written, make_net


@pytest.mark.parametrize("where", ["over", "under", "alone"])
def test_a_decorated_step_trains_the_users_variables(plain: Trained, where: str) -> None:
    net = make_net()
    place = baechi.place(**OPTIONS)
    step = {"over": lambda f: place(tf.function(f)), "under": lambda f: tf.function(place(f)), "alone": place}[where](
        net.step
    )
    assert [float(step(net.x, net.y)) for _ in range(STEPS)] == plain.losses
    assert all(map(np.array_equal, net.weights, plain.weights))
    assert {v.value.device[-5:] for v in net.model.variables} == {"CPU:0", "CPU:1"}


def test_another_shape_is_planned_anew_and_variables_stay(caplog: pytest.LogCaptureFixture) -> None:
    net = make_net()
    step = baechi.place(tf.function(net.step), **OPTIONS)
    step(net.x, net.y)
    homes = [v.value.device for v in net.model.variables]
    with caplog.at_level(logging.WARNING, "baechi"):
        step(net.x[:4], net.y[:4])
        step(net.x[:4], net.y[:4])
    assert [r.getMessage() for r in caplog.records] == ["baechi: step is planned anew for other arguments: plan 2"]
    assert [v.value.device for v in net.model.variables] == homes
    step.baechi.close()
    assert {v.value.device[-5:] for v in net.model.variables} == {"CPU:0"}


def fit(placed: bool) -> tuple[Any, dict[str, list[float]], Any]:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(4)]
    model = keras.Sequential([keras.layers.Input((10,)), *layers])
    model.compile("adam", "mse", metrics=["mae"], jit_compile=False)
    if placed:
        assert baechi.place(model, **OPTIONS) is model
    numbers = np.random.default_rng(0)
    x, y = numbers.normal(size=(12, 10)).astype("f"), numbers.normal(size=(12, 4)).astype("f")
    history = model.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0, shuffle=False).history
    model.train_on_batch(x[:8], y[:8])
    return model, history, model.predict(x, verbose=0)


def test_a_keras_model_fits_as_planned() -> None:
    with as_written():
        model, history, predicted = fit(placed=False)
    placed, same, found = fit(placed=True)
    assert same == history
    assert np.array_equal(found, predicted)
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(model.variables, placed.variables, strict=True))
    assert len(placed.baechi.plans) == 2  # the last batch is smaller
    assert {v.value.device[-5:] for v in placed.variables} == {"CPU:0", "CPU:1"}


def test_a_pinned_plan(tmp_path: Path) -> None:
    net = make_net()
    step = baechi.place(tf.function(net.step), **OPTIONS)
    step(net.x, net.y)
    write_plan(step.baechi.plans[0], tmp_path / "plan.json")
    again = make_net()
    pinned = baechi.place(tf.function(again.step), pin=str(tmp_path / "plan.json"))
    with pytest.raises(BaechiError, match="B402"):
        pinned(again.x[:4], again.y[:4])


def test_what_tensorflow_has_not_is_one_error() -> None:
    step = baechi.place(tf.function(lambda x: x + 1.0), cluster="1x1MiB", recompute="auto")
    with pytest.raises(BaechiError, match="B108"):
        step(tf.ones(2))


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAECHI_DISABLE", "1")
    function = tf.function(lambda x: x + 1.0)
    assert baechi.place(function, **OPTIONS) is function


def test_switched_off_later(monkeypatch: pytest.MonkeyPatch) -> None:
    step = baechi.place(tf.function(lambda x: x + 1.0), **OPTIONS)
    monkeypatch.setenv("BAECHI_DISABLE", "1")
    assert float(step(tf.constant(1.0))) == 2.0
    assert step.baechi.plans == ()
