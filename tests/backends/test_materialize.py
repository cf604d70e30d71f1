"""Materialised weights against those of a plain build."""

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import baechi.models.base as models
from baechi.backends.pytorch.materialize import materialize, record
from baechi.errors import BaechiError
from baechi.frontends.pytorch import capture
from baechi.frontends.pytorch.modules import find_weights
from tests.backends.peaks import peak

SIZES = {
    "gnmt": {"layers": 2, "units": 16, "vocab": 50},
    "gpt2": {"layers": 2, "width": 16, "heads": 4, "vocabulary": 50, "length": 8},
    "inception_v3": {},
    "mlp": {},
    "transformer": {"layers": 2, "width": 16, "heads": 2, "ffn": 24, "vocab": 50},
}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=3)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.layers = nn.ModuleList(copy.deepcopy(nn.Linear(8, 8)) for _ in range(2))
        self.register_buffer("mask", torch.tril(torch.ones(5, 5)), persistent=False)
        self.register_buffer("table", torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.register_buffer("given", torch.from_numpy(np.arange(6.0)))
        self.layers.apply(self.start)

    @staticmethod
    def start(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0.0, 0.02)
            module.weight.data[1:3, ::2].mul_(2.0)
            nn.init.trunc_normal_(module.bias, std=0.1)


class ReadsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4))
        self.rates = [x.item() for x in torch.linspace(0, 0.5, 3)]
        self.shadow = nn.Parameter(torch.full((3,), float(self.scale.detach().sum())))
        self.listed = self.scale.detach()[:2].tolist()
        self.array = nn.Parameter(torch.from_numpy(self.scale.detach().numpy() * 2))
        self.some = nn.Parameter(self.scale.detach()[self.scale.detach() > 0.4])
        if torch.equal(self.scale, self.shadow):
            raise ValueError
        self.order = nn.Parameter(torch.multinomial(self.scale.detach(), 4).float())


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.rand(3))
        own = torch.Generator().manual_seed(11)
        self.second = nn.Parameter(torch.empty(4, 20).normal_(generator=own))
        self.third = nn.Parameter(torch.randn(5, generator=own))
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.fourth = nn.Parameter(torch.bernoulli(torch.full((30,), 0.5)))
        self.fifth = nn.Parameter(torch.rand_like(self.first))


class OtherTypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        self.long = nn.Linear(3, 3)
        torch.set_default_dtype(before)
        self.short = nn.Linear(3, 3).half()
        self.short.weight.data = self.short.weight.data * 2
        self.columns = nn.Parameter(torch.empty(6, 9).t())
        nn.init.orthogonal_(self.columns)
        self.part = nn.Parameter(torch.rand(100, 4)[2:4])
        self.sparse = nn.Parameter(nn.init.sparse_(torch.empty(10, 8), sparsity=0.3))


def legacy() -> nn.Module:
    module = nn.Module()
    module.weight = nn.Parameter(torch.Tensor(4, 6).uniform_(-1, 1))
    module.bias = nn.Parameter(torch.FloatTensor(6).zero_())
    return module


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
    "generators": OwnGenerator,
    "legacy": legacy,
    "lstm": lambda: nn.LSTM(5, 6, 2, bidirectional=True),
    "orthogonal": lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)),
    "other types": OtherTypes,
    "reads values": ReadsValues,
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 7)),
    "tied": Tied,
    "transformer": lambda: nn.Transformer(8, 2, 1, 2, 16, batch_first=True),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 7)),
}


def weights(module: nn.Module) -> dict[str, Tensor]:
    found = find_weights(module)
    return {**found.buffers, **found.parameters}


def assert_same(build: Callable[[], nn.Module], *, parts: int = 3) -> None:
    """Every part of the weights equals the plain build's to the bit, and so does the generator after it."""
    torch.manual_seed(7)
    plain = weights(build())
    after = torch.get_rng_state()
    names = list(plain)
    for k in range(parts):
        torch.manual_seed(7)
        recording = record(build)
        assert not recording.whole
        assert torch.equal(torch.get_rng_state(), after)
        assert list(weights(recording.module)) == names
        got = recording.values(names[k::parts])
        assert list(got) == names[k::parts]
        for name, value in got.items():
            assert type(value) is Tensor
            assert value.stride() == plain[name].stride()
            torch.testing.assert_close(value, plain[name].detach(), rtol=0, atol=0, msg=name)
        assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("name", BUILDS)
def test_values_are_those_of_a_plain_build(name: str) -> None:
    assert_same(BUILDS[name])


@pytest.mark.parametrize("name", models.names())
def test_the_models_of_this_package(name: str) -> None:
    assert_same(models.get(name, **SIZES[name]).build, parts=1)


def tiny(name: str) -> Callable[[], nn.Module]:
    t = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    builds = {
        "bert": lambda: t.BertForMaskedLM(t.BertConfig(vocab_size=50, **small)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(vocab_size=50, n_layer=2, n_head=2, n_embd=16, bos_token_id=1, eos_token_id=2)
        ),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(vocab_size=50, num_key_value_heads=1, **small)),
        "t5": lambda: t.T5ForConditionalGeneration(
            t.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
        ),
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(image_size=16, patch_size=8, **small)),
    }
    return builds[name]


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "vit"])
def test_models_from_configs(name: str) -> None:
    assert_same(tiny(name), parts=2)


def test_values_that_the_constructor_read() -> None:
    torch.manual_seed(3)
    plain = ReadsValues()
    torch.manual_seed(3)
    built = record(ReadsValues).module
    assert isinstance(built, ReadsValues)
    assert (built.rates, built.listed) == (plain.rates, plain.listed)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.scale = torch.arange(4.0) * torch.rand(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.linear(x) * self.scale).sum()
        return out


def test_a_recorded_module_can_be_captured_and_its_constants_found() -> None:
    torch.manual_seed(5)
    plain = Scaled()
    torch.manual_seed(5)
    recording = record(Scaled)
    programs = [capture(m, (torch.ones(2, 4),), loss="output") for m in (plain, recording.module)]
    assert programs[0].graph.ops == programs[1].graph.ops
    for name, value in programs[0].constants.items():
        (found,) = recording.contents([programs[1].constants[name]])
        assert torch.equal(found, value)


def test_a_constructor_that_cannot_be_recorded_runs_plainly() -> None:
    def build() -> nn.Module:
        module = nn.Linear(4, 4)
        random.random()
        np.random.rand()
        assert type(module.weight) is nn.Parameter
        assert module.weight.data_ptr() != 0
        return module

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    plain, after, number, other = build(), torch.get_rng_state(), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    recording = record(build)
    assert recording.whole
    assert torch.equal(recording.values(["weight"])["weight"], plain.weight)
    assert torch.equal(torch.get_rng_state(), after)
    assert (random.random(), np.random.rand()) == (number, other)


def test_an_error_of_the_constructor_is_its_own() -> None:
    def build() -> nn.Module:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        record(build)


def test_an_unknown_name() -> None:
    with pytest.raises(BaechiError) as error:
        materialize(lambda: nn.Linear(2, 2), ["weights"])
    assert error.value.code == "B612"


def test_memory_is_the_named_tensors_and_one_more() -> None:
    layers, width = 8, 256

    def build() -> nn.Module:
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))

    one = width * width * 4
    assert peak(build) >= layers * one
    names = list(weights(build()))
    for k in range(4):
        mine = names[k * 4 : k * 4 + 4]  # two weights and two biases
        assert peak(lambda mine=mine: materialize(build, mine)) < 3.3 * one
