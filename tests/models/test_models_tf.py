"""The TensorFlow models: the PyTorch twins' sizes, the paper's, and steps that can be captured and trained."""

import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from baechi import models
from baechi.errors import BaechiError
from baechi.frontends.tf import capture
from baechi.models.tf import get, names

NAMES = ("gnmt", "inception_v3", "transformer")
SMALL = {
    "gnmt": {"length": 7, "layers": 3, "units": 8, "vocab": 40},
    "inception_v3": {"image": 75, "classes": 5},
    "transformer": {"layers": 2, "width": 16, "heads": 2, "ffn": 24, "vocab": 30, "length": 6},
}


def parameters(name, options):
    return sum(int(keras.ops.size(v)) for v in get(name, **options).build().trainable_variables)


def torch_parameters(name, options):
    import torch

    with torch.device("meta"):
        return sum(p.numel() for p in models.get(name, **options).build().parameters())


def test_every_model_file_is_listed():
    assert names() == models.names("tensorflow") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_specification_knows_its_name_and_options(name):
    spec = get(name, **SMALL[name])
    assert spec.name == name
    assert get(name, **spec.options).options == spec.options
    twin = models.get(name)
    assert get(name).default_batch == twin.default_batch
    assert set(get(name).options) <= set(twin.options)
    assert {k: twin.options[k] for k in get(name).options} == get(name).options


@pytest.mark.parametrize("name", ["gnmt", "transformer"])
def test_as_many_parameters_as_the_pytorch_model(name):
    assert parameters(name, SMALL[name]) == torch_parameters(name, SMALL[name])


def test_inception_is_that_of_keras():
    """Szegedy's network without the auxiliary head; the count is that of the Keras documentation."""
    model = get("inception_v3").build()
    assert model.count_params() == 23_851_784
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gnmt", {"lenght": 20}),
        ("gnmt", {"layers": 1}),
        ("transformer", {"width": 500, "heads": 8}),
        ("inception_v3", {"image": 74}),
        ("inception_v3", {"aux": True}),
        ("mlp", {}),
    ],
)
def test_what_there_is_not(name, options):
    with pytest.raises(BaechiError) as caught:
        get(name, **options)
    assert caught.value.code == ("B101" if name == "mlp" else "B102")
    assert caught.value.help


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_equal_for_equal_seeds(name):
    spec = get(name, **SMALL[name])
    (one, target), (same, _), (other, _) = spec.example(3), spec.example(3), spec.example(3, seed=1)
    for a, b, c in zip(one, same, other, strict=True):
        assert (a == b).all()
        assert (a != c).any()
        assert len(a) == len(target) == 3


@pytest.mark.parametrize("name", ["gnmt", "transformer"])
def test_the_loss_is_the_mean_cross_entropy_of_a_token(name):
    spec = get(name, **SMALL[name])
    (source, given), wanted = spec.example(3)
    model = spec.build()
    logits = model(source, given, training=False)
    length, vocab = SMALL[name]["length"], SMALL[name]["vocab"]
    runs = logits if isinstance(logits, tuple) else (logits,)
    whole = np.concatenate([np.reshape(r, (3, -1, vocab)) for r in runs], axis=1)
    assert whole.shape == (3, length, vocab)
    shifted = whole - whole.max(-1, keepdims=True)
    scores = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    mean = -np.take_along_axis(scores, wanted[..., None].astype(np.int64), -1).mean()
    assert float(spec.loss(logits, wanted)) == pytest.approx(mean, rel=1e-5)


def test_the_decoder_does_not_look_ahead():
    spec = get("transformer", **SMALL["transformer"])
    (source, given), _ = spec.example(2)
    model = spec.build()
    changed = given.copy()
    changed[:, -1] = (changed[:, -1] + 1) % 30
    before, after = (np.asarray(model(source, g, training=False)) for g in (given, changed))
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert (before[:, -1] != after[:, -1]).any()


@pytest.mark.parametrize("name", ["gnmt", "transformer"])
def test_a_step_is_captured_whole_and_learns(name):
    keras.utils.set_random_seed(0)
    spec = get(name, **{**SMALL[name], **({"dropout": 0.0} if name == "transformer" else {})})
    job = spec.job(3)
    program = capture(job["step"], job["args"], name=name)
    sizes = [op.outputs[0].nbytes for op in program.graph.ops if op.kind == "parameter"]
    assert sum(sizes) == 4 * parameters(name, SMALL[name])
    assert not any("Call" in node.op or "While" in node.op for node in program.graph_def.node)
    losses = [float(job["step"](*job["args"])) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_expert_gives_each_layer_a_device():
    spec = get("gnmt", length=3, layers=4, units=8, vocab=20)
    job = spec.job(2)
    program = capture(job["step"], job["args"], name="gnmt")
    device = {op.name: spec.expert(op.module, 4) for op in program.graph.ops}
    assert device["gnmt/encoder/embedding/table"] == 0
    assert device["gnmt/encoder/layer_2/cell/kernel"] == 2
    assert device["gnmt/decoder/layer_3/cell/kernel"] == 3
    assert device["gnmt/decoder/attention/query"] == 3
    free = {op.name for op in program.graph.ops if device[op.name] is None}
    assert all(
        name.startswith(("adam", "tensors_", "strided_slice", "AssignVariableOp", "Add", "Cast")) for name in free
    )
    unplaced = [op for op in program.graph.ops if op.phase == "backward" and device[op.name] is None]
    assert unplaced == []


def test_the_unrolled_graph_has_a_product_for_each_cell_and_token():
    length, layers = 7, 2
    job = get("gnmt", length=length, layers=layers, units=4, vocab=10).job(2)
    graph = capture(job["step"], job["args"]).graph
    products = [op for op in graph.ops if op.kind == "MatMul" and op.phase == "forward"]
    assert sum(op.module.endswith(".cell") for op in products) == length * (2 * layers + 1)
    assert sum(op.module.endswith(".attention") for op in products) == 2 * (length - 1)
    assert sum(op.module.endswith("output") for op in products) == 2  # runs of five tokens


@pytest.mark.parametrize("code", ["import baechi.models.tf", "from baechi.models import names; names('tensorflow')"])
def test_listing_imports_no_framework(code):
    check = "; import sys; sys.exit(any(m in sys.modules for m in ('torch', 'tensorflow', 'keras')))"
    assert subprocess.run([sys.executable, "-c", code + check], check=False).returncode == 0


def test_a_tensorflow_model_brings_no_torch():
    code = (
        "import sys; from baechi.models import get; from baechi.frontends.tf import capture;"
        "job = get('gnmt', framework='tensorflow', length=2, layers=2, units=4, vocab=9).job(2);"
        "capture(job['step'], job['args']); sys.exit('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_inception_holds_what_keras_counts():
    job = get("inception_v3", **SMALL["inception_v3"]).job(1)
    program = capture(job["step"], job["args"], name="inception_v3")
    held = sum(op.persistent_bytes for op in program.graph.ops if op.kind in ("parameter", "buffer"))
    assert held == sum(v.dtype.size * v.shape.num_elements() for v in program.trained.values())
    parameters = sum(op.outputs[0].nbytes for op in program.graph.ops if op.kind == "parameter")
    classifier = 2048 * 5 + 5
    assert parameters == 4 * (21_768_352 + classifier)  # trainable without the classifier, by Keras's own summary
    assert sum(op.kind == "Conv2D" for op in program.graph.ops) == 94
