import itertools
import math
from collections import Counter

import pytest
import torch
from torch import nn

from baechi import models

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
TINY = {
    "gnmt": {"length": 5, "layers": 3, "units": 8, "vocab": 13},
    "gpt2": {"layers": 2, "width": 16, "heads": 4, "vocabulary": 13, "length": 6},
    "inception_v3": {"image": 75, "classes": 5, "aux": False},
    "mlp": {"width": 16, "inputs": 12, "classes": 3},
    "transformer": {"layers": 2, "width": 16, "heads": 4, "ffn": 24, "vocab": 13, "length": 6},
}
RESULTS = {"gnmt": (2, 5, 13), "gpt2": (2, 6, 13), "inception_v3": (2, 5), "mlp": (2, 3), "transformer": (2, 6, 13)}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tiny(name):
    return models.get(name, **TINY[name])


def parameters(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in models.get(name, **options).build().parameters())


@pytest.mark.parametrize("name", models.names())
def test_five_steps_of_training_lower_the_loss(name):
    still = {"dropout": 0.0} if "dropout" in tiny(name).options else {}
    spec = models.get(name, **TINY[name], **still)
    model = spec.build()
    kind, options = spec.optimizer
    optimizer = OPTIMIZERS[kind](model.parameters(), **options)
    args, target = spec.example(2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        found = output = model(*args)
        output = getattr(output, "logits", output)
        whole = torch.cat(output, dim=1) if isinstance(output, tuple) else output
        assert whole.shape == RESULTS[name]
        loss = spec.loss(found, target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses)))
    assert min(losses[1:]) < losses[0]
    for key, value in model.named_parameters():
        assert value.grad is not None, key
        assert value.grad.isfinite().all(), key


@pytest.mark.parametrize("name", models.names())
def test_an_example_depends_on_its_batch_and_seed_alone(name):
    spec = tiny(name)
    (a, a_target), (b, b_target), (c, c_target) = spec.example(3), spec.example(3), spec.example(3, seed=1)
    assert all(torch.equal(x, y) for x, y in zip((*a, a_target), (*b, b_target), strict=True))
    assert not torch.equal(a[0], c[0])
    assert not torch.equal(a_target, c_target) or name == "mlp"
    assert all(t.shape[0] == 3 and t.device.type == "cpu" for t in (*a, a_target))


@pytest.mark.parametrize("name", ["gnmt", "transformer"])
def test_the_decoder_is_fed_the_target_shifted_by_one(name):
    spec = tiny(name)
    (source, fed), target = spec.example(4)
    assert torch.equal(fed[:, 1:], target[:, :-1])
    for tokens in (source, fed, target):
        assert tokens.dtype == torch.int64
        assert tokens.min() >= 0
        assert tokens.max() < spec.options["vocab"]


@pytest.mark.parametrize("name", models.names())
def test_a_full_size_model_builds_without_weights(name):
    with torch.device("meta"):
        model = models.get(name).build()
    assert model.training
    assert all(t.is_meta for t in itertools.chain(model.parameters(), model.buffers()))


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", models.names())
def test_the_expert_covers_every_module(name, devices):
    spec = models.get(name)
    with torch.device("meta"):
        paths = [path for path, _ in spec.build().named_modules()]
    assert all(spec.expert(path, devices) in range(devices) for path in paths)
    assert spec.expert("no.such.module", devices) is None


def test_experts_are_those_of_the_paper():
    gnmt, transformer = models.get("gnmt").expert, models.get("transformer").expert
    for part in ("encoder", "decoder"):
        assert [gnmt(f"{part}.layers.{i}.cell", 4) for i in range(4)] == [0, 1, 2, 3]
        assert [gnmt(f"{part}.layers.{i}", 2) for i in range(4)] == [0, 0, 1, 1]
        assert gnmt(f"{part}.embedding.tokens", 4) == 0
    assert gnmt("decoder.attention.query", 4) == gnmt("output", 4) == 3
    assert transformer("encoder.layers.5.ffn.0", 4) == 0
    assert transformer("decoder.layers.0", 4) == transformer("decoder.output", 4) == 1
    assert models.get("inception_v3").expert("stage8.1.deep", 4) == 0
    assert [models.get("mlp").expert(p, 3) for p in ("hidden.0.0", "hidden.1.1", "classifier")] == [0, 1, 2]


# Inception-V3


def test_inception_has_the_published_number_of_parameters():
    assert parameters("inception_v3") == 27_161_264
    assert parameters("inception_v3", aux=False) == 23_834_568


def test_inception_has_the_published_layers_and_sizes():
    with torch.device("meta"):
        model = models.get("inception_v3").build()
        sizes = {}
        for name, child in model.named_children():
            child.register_forward_hook(lambda _, __, result, name=name: sizes.update({name: tuple(result.shape[1:])}))
        logits, aux = model(torch.empty(2, 3, 299, 299))
    assert logits.shape == aux.shape == (2, 1000)
    assert sizes == {
        "stem": (192, 35, 35),
        "stage35": (288, 35, 35),
        "reduce35": (768, 17, 17),
        "stage17": (768, 17, 17),
        "aux": (1000,),
        "reduce17": (1280, 8, 8),
        "stage8": (2048, 8, 8),
        "head": (1000,),
    }
    kinds = Counter(type(module) for module in model.modules())
    assert kinds[nn.Conv2d] == kinds[nn.BatchNorm2d] == 96  # 94, and 2 in the auxiliary head
    assert kinds[nn.Dropout] == 1


def test_inception_leaves_the_auxiliary_head_out_of_evaluation():
    with torch.device("meta"):
        model = models.get("inception_v3").build().eval()
        assert model(torch.empty(1, 3, 299, 299)).shape == (1, 1000)


def test_inception_adds_four_tenths_of_the_auxiliary_loss():
    loss = models.get("inception_v3").loss
    logits, aux, target = torch.randn(3, 7), torch.randn(3, 7), torch.tensor([0, 6, 3])

    def cross_entropy(x):
        return -torch.log(x.exp() / x.exp().sum(1, keepdim=True))[range(3), target].mean()

    torch.testing.assert_close(loss((logits, aux), target), cross_entropy(logits) + 0.4 * cross_entropy(aux))
    torch.testing.assert_close(loss(logits, target), cross_entropy(logits))


# Transformer


def test_transformer_has_as_many_parameters_as_torchs_own():
    with torch.device("meta"):
        own = nn.Transformer(512, 8, 6, 6, 2048, batch_first=True)
    final_norms = 2 * 2 * 512
    attention_biases = 18 * 4 * 512
    embeddings, output = 2 * 30_000 * 512, 30_000 * 512 + 30_000
    expected = sum(p.numel() for p in own.parameters()) - final_norms - attention_biases + embeddings + output
    assert parameters("transformer") == expected == 90_211_632


def test_transformer_computes_what_torchs_own_layers_do():
    model = tiny("transformer").build().eval()
    encoder, decoder = model.encoder.layers[0], model.decoder.layers[0]
    own_encoder = nn.TransformerEncoderLayer(16, 4, 24, 0.1, batch_first=True).eval()
    own_decoder = nn.TransformerDecoderLayer(16, 4, 24, 0.1, batch_first=True).eval()
    _copy_attention(encoder.attention, own_encoder.self_attn)
    _copy_attention(decoder.attention, own_decoder.self_attn)
    _copy_attention(decoder.cross, own_decoder.multihead_attn)
    for ours, own in ((encoder, own_encoder), (decoder, own_decoder)):
        own.linear1.load_state_dict(ours.ffn[0].state_dict())
        own.linear2.load_state_dict(ours.ffn[3].state_dict())
    x, memory, mask = torch.randn(2, 6, 16), torch.randn(2, 6, 16), model.decoder.mask
    torch.testing.assert_close(encoder(x), own_encoder(x))
    torch.testing.assert_close(decoder(x, memory, mask), own_decoder(x, memory, tgt_mask=mask))


def _copy_attention(ours, own):
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        own.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        own.in_proj_bias.zero_()
        own.out_proj.weight.copy_(ours.output.weight)
        own.out_proj.bias.zero_()


def test_transformer_looks_at_no_later_token_and_at_positions():
    model = tiny("transformer").build().eval()
    (source, fed), _ = tiny("transformer").example(1)
    changed = fed.clone()
    changed[0, 3] = (changed[0, 3] + 1) % 13
    a, b = model(source, fed), model(source, changed)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3], b[:, 3])
    positions = model.encoder.embedding.positions
    assert positions[3, 0].item() == pytest.approx(math.sin(3), abs=1e-6)
    assert positions[5, 3].item() == pytest.approx(math.cos(5 / 10_000 ** (2 / 16)), abs=1e-6)


def test_transformer_has_dropout_where_the_paper_has_it():
    kinds = Counter(type(module) for module in models.get("transformer", **TINY["transformer"]).build().modules())
    embeddings, sublayers, attentions, ffns = 2, 2 * 2 + 2 * 3, 2 + 2 * 2, 4
    assert kinds[nn.Dropout] == embeddings + sublayers + attentions + ffns
    assert kinds[nn.LayerNorm] == sublayers


def test_transformer_drops_out_in_training_alone():
    spec = tiny("transformer")
    model, (args, _) = spec.build(), spec.example(2)
    assert not torch.equal(model(*args), model(*args))
    model.eval()
    assert torch.equal(model(*args), model(*args))


# GNMT


def test_gnmt_has_as_many_parameters_as_its_layers_say():
    u, v = 512, 30_000

    def lstm(inputs):
        return 4 * u * (inputs + u + 1)

    encoder = 2 * lstm(u) + lstm(2 * u) + 2 * lstm(u)
    decoder = 4 * lstm(2 * u)
    attention = 2 * u * u + u
    assert parameters("gnmt") == 2 * v * u + encoder + decoder + attention + u * v == 70_740_480


def test_gnmt_encodes_as_torchs_own_lstms_do():
    model = tiny("gnmt").build()
    own = [nn.LSTM(8, 8, bidirectional=True), nn.LSTM(16, 8), nn.LSTM(8, 8)]
    bottom, *upper = model.encoder.layers
    _copy_cell(bottom.ahead.cell, own[0], "_l0")
    _copy_cell(bottom.back.cell, own[0], "_l0_reverse")
    for layer, lstm in zip(upper, own[1:], strict=True):
        _copy_cell(layer.cell, lstm, "_l0")
    tokens = torch.randint(13, (2, 5))
    x, _ = own[0](model.encoder.embedding.tokens(tokens.t()))
    first, state1 = own[1](x)
    second, state2 = own[2](first)
    memory, states = model.encoder(tokens)
    torch.testing.assert_close(memory, (first + second).transpose(0, 1))
    torch.testing.assert_close(torch.stack(states[1]), torch.stack(state1)[:, 0])
    torch.testing.assert_close(torch.stack(states[2]), torch.stack(state2)[:, 0])


def _copy_cell(cell, lstm, suffix):
    """Ours has gates input, forget, output, new and one matrix; torch's input, forget, new, output and two."""
    inputs = cell.weight.shape[0] - cell.weight.shape[1] // 4
    units = cell.weight.shape[1] // 4
    order = torch.cat([torch.arange(units) + units * gate for gate in (0, 1, 3, 2)])
    with torch.no_grad():
        getattr(lstm, f"weight_ih{suffix}").copy_(cell.weight[:inputs].t()[order])
        getattr(lstm, f"weight_hh{suffix}").copy_(cell.weight[inputs:].t()[order])
        getattr(lstm, f"bias_ih{suffix}").copy_(cell.bias[order])
        getattr(lstm, f"bias_hh{suffix}").zero_()


def test_gnmt_attention_is_a_weighted_mean_of_memory():
    attention = tiny("gnmt").build().decoder.attention
    memory, query = torch.randn(2, 5, 8), torch.randn(2, 8)
    found = attention(query, attention.key(memory), memory)
    for b in range(2):
        hidden = [torch.tanh(attention.query.weight @ query[b] + attention.key.weight @ m) for m in memory[b]]
        weights = torch.stack([h @ attention.score for h in hidden]).exp()
        torch.testing.assert_close(found[b], (weights[:, None] * memory[b]).sum(0) / weights.sum())


def test_gnmt_feeds_the_bottom_layers_last_context_to_every_layer():
    model = tiny("gnmt").build()
    decoder = model.decoder
    tokens, memory = torch.randint(13, (2, 5)), torch.randn(2, 5, 8)
    states = [(torch.randn(2, 8), torch.randn(2, 8)) for _ in range(3)]
    running, context, found = list(states), torch.zeros(2, 8), []
    for x in decoder.embedding(tokens):
        for i, layer in enumerate(decoder.layers):
            running[i] = layer.cell((x, context), running[i])
            x = running[i][0] + x if i >= 2 else running[i][0]
        found.append(x)
        context = decoder.attention(running[0][0], decoder.attention.key(memory), memory)
    torch.testing.assert_close(decoder(tokens, memory, states), torch.stack(found, 1))


def test_gnmt_scores_runs_of_tokens_like_whole_sentences():
    spec = models.get("gnmt", length=12, layers=2, units=8, vocab=13)
    args, target = spec.example(3)
    logits = spec.build()(*args)
    assert [run.shape[1] for run in logits] == [5, 5, 2]
    whole = torch.nn.functional.cross_entropy(torch.cat(logits, dim=1).flatten(0, 1), target.flatten())
    torch.testing.assert_close(spec.loss(logits, target), whole)
