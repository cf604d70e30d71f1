"""The IR of a captured step: links, memory, costs, order, names."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from baechi.frontends.pytorch import TorchProgram, build_meta, capture
from baechi.ir.op import Op

CASES = ["cnn", "encoder", "seq2seq", "tied"]


_CAPTURED: dict[str, tuple[nn.Module, TorchProgram]] = {}


def _program(case: Any, name: str, **options: Any) -> tuple[nn.Module, TorchProgram]:
    """A case, captured once for all tests that only look at it."""
    key = f"{name} {options}"
    if key not in _CAPTURED:
        module, args, target = case(name)
        _CAPTURED[key] = module, capture(module, args, loss=nn.functional.cross_entropy, target=target, **options)
    return _CAPTURED[key]


def _ops(program: TorchProgram, kind: str) -> list[Op]:
    return [op for op in program.graph.ops if op.kind == kind]


def _sources(program: TorchProgram) -> set[str]:
    return {
        op.name for op in program.graph.ops if not op.inputs and op.kind in {"parameter", "buffer", "input", "tangent"}
    }


@pytest.mark.parametrize("name", CASES)
def test_every_backward_op_has_a_forward_twin(name: str, case: Any) -> None:
    _, program = _program(case, name, optimizer="adam")
    calls = [op for op in program.graph.ops if op.phase == "backward" and op.kind.startswith("aten.")]
    assert calls
    for op in calls:
        assert op.forward is not None, op.name
        assert program.graph.op[op.forward].phase == "forward"


@pytest.mark.parametrize("name", CASES)
def test_ops_and_fx_nodes_are_one_to_one(name: str, case: Any) -> None:
    _, program = _program(case, name, optimizer="adam")
    covered = [n for nodes in program.nodes.values() for n in nodes]
    calls = [n for n in program.module.graph.nodes if n.op == "call_function"]
    assert sorted(n.name for n in covered) == sorted(n.name for n in calls)
    placeholders = {n.name for n in program.module.graph.nodes if n.op == "placeholder"}
    assert placeholders == _sources(program)
    for tensor, node in program.values.items():
        assert program.graph.tensor[tensor].shape == tuple(node.meta["val"].shape)


@pytest.mark.parametrize("name", CASES)
def test_the_alias_of_a_tensor_is_what_the_schema_says(name: str, case: Any) -> None:
    """Storage identity of fake tensors against the alias annotations of the operators."""
    _, program = _program(case, name, optimizer="adam")
    roots = {t.name: t.alias_of or t.name for t in program.graph.tensor.values()}
    for op in program.graph.ops:
        for node in program.nodes[op.name][:1]:
            annotated = any(r.alias_info is not None for r in node.target._schema.returns)
            shares = all(t.alias_of for t in op.outputs)
            assert shares == (annotated or op.kind == "aten._unsafe_view"), op.name
            if shares:
                assert {t.alias_of for t in op.outputs} <= {roots[i] for i in op.inputs}
                assert (op.flops, op.moved_bytes) == (0, 0)


def test_a_slice_of_each_row_is_scattered_and_whole_rows_are_not() -> None:
    """A split, and the backward of a concatenation: by hand, for 4 x 6 and 4 x 9 elements row by row."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(5, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.lift(x).chunk(2, dim=1)
            top, bottom = (left * right).chunk(2, dim=0)
            return torch.cat([left, right.relu(), torch.cat([top, bottom]).tanh()], dim=1).square().sum()

    graph = capture(Model(), (torch.randn(4, 5),), loss="output").graph
    made = [(op.kind, op.phase, t) for op in graph.ops for t in op.outputs]
    found = {(kind, phase, t.shape, t.scattered) for kind, phase, t in made if kind in ("aten.split", "aten.slice")}
    assert found == {
        ("aten.split", "forward", (4, 3), True),
        ("aten.split", "forward", (2, 3), False),
        ("aten.slice", "backward", (4, 3), True),
        ("aten.slice", "backward", (2, 3), False),
    }
    assert all(t.alias_of is not None for _, _, t in made if t.scattered)


@pytest.mark.parametrize(
    ("optimizer", "options", "copies"),
    [(None, {}, 0), ("sgd", {}, 0), ("momentum", {}, 1), ("adam", {}, 2), ("adamw", {"amsgrad": True}, 3)],
)
def test_parameters_persist_with_their_optimiser_state(optimizer: Any, options: Any, copies: int, case: Any) -> None:
    module, program = _program(case, "cnn", optimizer=optimizer, optimizer_options=options)
    parameters = sum(p.numel() * 4 for p in module.parameters())
    assert sum(op.persistent_bytes for op in _ops(program, "parameter")) == parameters * (1 + copies)
    assert sum(op.outputs[0].held for op in _ops(program, "parameter")) == parameters
    assert sum(op.persistent_bytes for op in _ops(program, "buffer")) == (8 + 8) * 4 + 8
    assert sum(op.persistent_bytes for op in _ops(program, "input")) == 4 * 3 * 10 * 10 * 4 + 4 * 8
    assert sum(op.persistent_bytes for op in program.graph.ops if op.kind.startswith("aten.")) == 0


def test_kept_gradients_persist(case: Any) -> None:
    module, program = _program(case, "cnn", optimizer="sgd", keep_gradients=True)
    parameters = sum(p.numel() * 4 for p in module.parameters())
    assert sum(op.persistent_bytes for op in _ops(program, "parameter")) == 2 * parameters
    for name, tensor in program.gradients.items():
        made = program.graph.tensor[tensor]
        assert made.keep
        root = program.graph.tensor[made.alias_of or made.name]
        assert root.held == module.get_parameter(name).numel() * 4


def test_gradients_are_results_only_without_an_optimiser(case: Any) -> None:
    for optimizer in (None, "sgd"):
        _, program = _program(case, "cnn", optimizer=optimizer)
        kept = [program.graph.tensor[t].keep for t in program.gradients.values()]
        assert kept == [optimizer is None] * len(kept)


@pytest.mark.parametrize("name", CASES)
def test_an_update_follows_all_that_reads_its_parameter(name: str, case: Any) -> None:
    _, program = _program(case, name, optimizer="adam")
    graph = program.graph
    alias = {t.name: t.alias_of or t.name for t in graph.tensor.values()}
    writes = [(program.updates[n], program.parameters[n]) for n in program.updates]
    writes += [(program.buffer_updates[n], program.buffers[n]) for n in program.buffer_updates]
    for write, held in writes:
        op = graph.op[write]
        readers = {o.name for o in graph.ops if any(alias[t] == held for t in o.inputs)} - {write}
        assert set(op.after) == readers
        assert op.inputs[1] == held
        assert op.group == graph.op[held].group is not None
        assert op.phase == "update"


@pytest.mark.parametrize("name", ["cnn", "encoder"])
def test_random_ops_form_one_chain_in_program_order(name: str, case: Any) -> None:
    _, program = _program(case, name, optimizer="adam")
    random = [op for op in program.graph.ops if op.kind in {"aten.native_dropout", "aten.bernoulli"}]
    assert random
    assert [op.after for op in random] == [(), *[(op.name,) for op in random[:-1]]]


def test_flops_of_linear_and_convolution() -> None:
    batch, wide, narrow = 6, 10, 7
    program = capture(nn.Linear(wide, narrow), (torch.ones(batch, wide),), loss=torch.sum)
    products = [op.flops for op in program.graph.ops if op.kind in {"aten.addmm", "aten.mm"}]
    assert products == [2 * batch * wide * narrow] * 2  # forward, and the gradient of the weight

    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 8, 3, stride=2, bias=False))
    program = capture(module, (torch.ones(2, 3, 11, 11),), loss=torch.sum)
    first, second = 2 * 2 * 9 * 9 * 4 * 3 * 9, 2 * 2 * 4 * 4 * 8 * 4 * 9
    assert [op.flops for op in _ops(program, "aten.convolution")] == [first, second]
    # The second convolution has gradients of input and weight; the first's input needs none.
    assert [op.flops for op in _ops(program, "aten.convolution_backward")] == [2 * second, first]


def test_bytes_of_a_call_are_its_inputs_and_outputs(case: Any) -> None:
    program = capture(nn.Sequential(nn.Linear(5, 3), nn.ReLU()), (torch.ones(2, 5),), loss=torch.sum)
    (relu,) = _ops(program, "aten.relu")
    assert relu.moved_bytes == 2 * (2 * 3 * 4)
    (addmm,) = _ops(program, "aten.addmm")
    assert addmm.moved_bytes == 4 * (3 + 2 * 5 + 5 * 3 + 2 * 3)
    assert addmm.key == "aten.addmm.default(f32[3],f32[2,5],f32[5,3]s[1,5])"
    (expand,) = _ops(program, "aten.expand")
    assert expand.outputs[0].nbytes == 4


def test_module_path_and_source_line_of_an_op(case: Any) -> None:
    _, program = _program(case, "cnn", optimizer="adam")
    convolutions = _ops(program, "aten.convolution")
    assert [op.module for op in convolutions] == ["conv1", "left", "right"]
    lines = Path(__file__).with_name("conftest.py").read_text().splitlines()
    for op in convolutions:
        file, _, line = op.source.rpartition(":")
        assert file.endswith("tests/frontends/conftest.py")
        assert f"self.{op.module}(" in lines[int(line) - 1]
    for op in _ops(program, "aten.convolution_backward"):
        assert op.forward is not None
        assert op.module == program.graph.op[op.forward].module


def test_inputs_that_nothing_reads_have_no_op() -> None:
    class Ignores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, unused: torch.Tensor, scale: float) -> torch.Tensor:
            out: torch.Tensor = self.fc(x) * scale
            return out

    x = torch.ones(3, 2)
    program = capture(Ignores(), (x, x), {"scale": 2.0}, loss=nn.functional.mse_loss, target=x)
    assert program.inputs == ("input_0", None, None, "input_3")
    assert [op.name for op in _ops(program, "input")] == ["input_0", "input_3"]


def test_a_frozen_or_unused_parameter_is_charged_but_not_updated() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    module["b"].requires_grad_(False)
    module.forward = lambda x: module["b"](module["a"](x))  # type: ignore[method-assign]
    program = capture(module, (torch.ones(1, 2),), loss=torch.sum, optimizer="adam")
    assert list(program.gradients) == list(program.updates) == ["a.weight", "a.bias"]
    held = {n: program.graph.op[op].persistent_bytes for n, op in program.parameters.items()}
    assert held == {"a.weight": 48, "a.bias": 24, "b.weight": 16, "b.bias": 8, "c.weight": 16, "c.bias": 8}


def test_a_meta_module_gives_the_graph_of_a_real_one(case: Any) -> None:
    module, program = _program(case, "cnn", optimizer="adam")
    _, args, target = case("cnn")
    empty = build_meta(type(module))
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    args = tuple(a.to("meta") for a in args)
    other = capture(empty, args, loss=nn.functional.cross_entropy, target=target, optimizer="adam")
    assert other.graph.digest == program.graph.digest


def test_a_module_that_reads_values_is_built_for_real() -> None:
    def factory() -> nn.Module:
        return nn.Linear(int(torch.linspace(1, 4, 4).sum().item()), 2)

    module = build_meta(factory)
    assert [tuple(p.shape) for p in module.parameters()] == [(2, 10), (2,)]


_DIGEST = """
import importlib.util, sys, torch
from torch import nn
from baechi.frontends.pytorch import capture
spec = importlib.util.spec_from_file_location("models_to_capture", sys.argv[1])
found = importlib.util.module_from_spec(spec)
spec.loader.exec_module(found)
for name in sys.argv[2:]:
    module, args, target = found.make_case(name)
    print(capture(module, args, loss=nn.functional.cross_entropy, target=target, optimizer="adam").graph.digest)
"""


def test_two_processes_extract_the_same_graph(case: Any) -> None:
    names = ("cnn", "encoder")
    command = [sys.executable, "-c", _DIGEST, str(Path(__file__).with_name("conftest.py")), *names]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert other.split() == [_program(case, name, optimizer="adam")[1].graph.digest for name in names]


def test_llama_flops_are_six_per_parameter_and_token() -> None:
    """The rule of Kaplan et al.: 6 N T for the matrix products; attention comes on top."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, vocab_size=512
    )
    module = build_meta(lambda: transformers.LlamaForCausalLM(config))
    tokens = 64
    ids = torch.zeros(1, tokens, dtype=torch.long)
    program = capture(module, kwargs={"input_ids": ids, "labels": ids, "use_cache": False}, loss="output")
    products = sum(op.flops for op in program.graph.ops if op.kind in {"aten.mm", "aten.addmm", "aten.bmm"})
    weights = sum(p.numel() for n, p in module.named_parameters() if p.dim() == 2 and "embed_tokens" not in n)
    assert math.isclose(products, 6 * weights * tokens, rel_tol=0.01)
