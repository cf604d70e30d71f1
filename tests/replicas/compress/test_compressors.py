"""Each compressor against its definition in plain torch, its stated contraction or variance, and its bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baechi.errors import BaechiError
from baechi.replicas.compress import COMPRESSORS, compressor
from baechi.replicas.compress.base import Key, decode, encode
from baechi.replicas.compress.bits import pack, unpack

SPECS = (
    *("identity", "none", "random-block:7", "random-k:7", "top-k:7", "sign", "sign:8"),
    *("qsgd:4", "qsgd:8", "qsgd:2:shrunk", "random-block:3+sign", "random-k:3+qsgd:8", "random-block:2+random-k:2"),
)


KEY = Key(3, 1)


def apply(spec, v, key=KEY, sizes=None):
    c, sizes = compressor(spec), sizes or (len(v),)
    sent = encode(c, v, sizes, key)
    assert sent.nbytes == sum(c.nbytes(size, v.dtype.itemsize) for size in sizes)
    return decode(c, sent, sizes, v.dtype, key)


def normal(size, seed=0, dtype=torch.float64):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=60)
@given(spec=st.sampled_from(SPECS), size=st.integers(1, 70), more=st.integers(1, 9), double=st.booleans())
def test_what_is_decoded_has_the_shape_and_the_bytes_that_were_stated(spec, size, more, double):
    v = normal(size + more, size, torch.float64 if double else torch.float32)
    made = apply(spec, v, sizes=(size, more))
    assert made.shape == v.shape
    assert made.dtype == v.dtype
    assert made.isfinite().all()


@pytest.mark.parametrize("spec", SPECS)
def test_contraction_or_the_variance_is_as_stated(spec):
    v, c = normal(101), compressor(spec)
    errors = torch.tensor([float(((apply(spec, v, Key(0, t)) - v) ** 2).sum()) for t in range(1500)])
    share = float(errors.mean()) / float((v**2).sum())
    assert share <= 1 - c.contraction(101) + 0.02
    if spec in ("random-block:7", "random-k:7"):  # 15 of 101
        assert share == pytest.approx(1 - 15 / 101, rel=0.01)
    if spec == "random-block:2+random-k:2":  # 26 of 51 of 101
        assert share == pytest.approx(1 - 26 / 101, rel=0.01)


def test_qsgd_is_unbiased():
    v = normal(40)
    mean = torch.stack([apply("qsgd:4", v, Key(0, t)) for t in range(6000)]).mean(0)
    assert float((mean - v).norm() / v.norm()) < 0.02


def test_a_block_is_contiguous_goes_around_and_comes_everywhere_alike():
    size, hits = 10, torch.zeros(10)
    for t in range(4000):
        kept = apply("random-block:3", torch.ones(size), Key(1, t))
        hits += kept
        assert int(kept.sum()) == 4
        assert int((kept != kept.roll(1)).sum()) == 2  # one beginning and one end, on the circle
    assert (hits / 4000 - 0.4).abs().max() < 0.03


@pytest.mark.parametrize("spec", ["random-block:5", "random-k:5"])
def test_workers_choose_the_same_elements_and_steps_and_tensors_others(spec):
    ones = torch.ones(500)
    assert torch.equal(apply(spec, ones, Key(0, 4, worker=1)), apply(spec, ones, Key(0, 4, worker=2)))
    others = [Key(0, 5), Key(0, 4, use=1), Key(1, 4)]
    assert not any(torch.equal(apply(spec, ones, Key(0, 4)), apply(spec, ones, key)) for key in others)
    two = apply(spec, torch.ones(1000), Key(0, 4), sizes=(500, 500))
    assert not torch.equal(two[:500], two[500:])


def test_top_k_keeps_the_largest():
    v = torch.tensor([1.0, -5.0, 0.5, 4.0, -0.1])
    assert apply("top-k:2.5", v).tolist() == [0.0, -5.0, 0.0, 4.0, 0.0]
    assert compressor("top-k:2.5").nbytes(5, 4) == 2 * (4 + 4)


def test_sign_is_the_mean_magnitude_with_signs():
    v = torch.tensor([1.0, -5.0, 0.0, 4.0, -2.0])
    assert apply("sign", v).tolist() == pytest.approx([2.4, -2.4, 2.4, 2.4, -2.4])
    assert compressor("sign").nbytes(1000, 4) == 125 + 4


def test_sign_in_blocks_has_the_mean_magnitude_of_each():
    v = torch.tensor([1.0, -5.0, 0.0, 4.0, -2.0])
    assert apply("sign:2", v).tolist() == pytest.approx([3.0, -3.0, 2.0, 2.0, -2.0])
    assert compressor("sign:32").nbytes(1000, 4) == 125 + 4 * 32
    assert compressor("sign:2").contraction(1000) == 0.5


def test_sign_in_blocks_of_an_uneven_vector_leaves_less():
    v = normal(320) * torch.logspace(0, 3, 320)  # the embeddings of rare and of frequent bytes
    left = [float((apply(spec, v) - v).norm() / v.norm()) for spec in ("sign:32", "sign")]
    assert left[0] < 0.75
    assert left[1] > 0.85


def test_composed_is_the_second_of_what_the_first_chose():
    v, chosen = normal(40), apply("random-block:4", torch.ones(40), KEY).bool()
    made = apply("random-block:4+sign", v)
    assert torch.equal(made[~chosen], torch.zeros(30, dtype=torch.float64))
    torch.testing.assert_close(made[chosen], v[chosen].abs().mean() * v[chosen].sign())
    assert compressor("random-block:4+sign").nbytes(1000, 4) == 32 + 4


def test_qsgd_bytes_are_the_norms_and_the_bits():
    assert compressor("qsgd:4").nbytes(64, 4) == 2 * 4 + 32
    assert compressor("qsgd:2").nbytes(33, 8) == 2 * 8 + 9


@given(bits=st.sampled_from([1, 2, 4, 8]), numbers=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_packing_is_undone(bits, numbers):
    given_numbers = torch.tensor(numbers, dtype=torch.uint8) % 2**bits if bits < 8 else torch.tensor(numbers).byte()
    assert torch.equal(unpack(pack(given_numbers, bits), len(numbers), bits), given_numbers)


@pytest.mark.parametrize("spec", SPECS)
def test_nan_is_not_hidden_and_zero_stays_zero(spec):
    assert torch.equal(apply(spec, torch.zeros(20)), torch.zeros(20))
    if compressor(spec).contraction(20) == 1.0 or spec in ("top-k:7", "sign"):
        assert apply(spec, torch.full((20,), float("nan"))).isnan().any()


@pytest.mark.parametrize(
    "spec",
    [
        "gzip",
        "random-block",
        "random-block:0.5",
        "top-k:nan",
        "qsgd:3",
        "qsgd:4:x",
        "sign:0.5",
        "sign:-1",
        "top-k:2+sign",
        "random-block:2+",
    ],
)
def test_a_compressor_that_there_is_not_is_one_error(spec):
    with pytest.raises(BaechiError) as caught:
        compressor(spec)
    assert caught.value.code == "B830"


def test_every_compressor_is_tried_here():
    assert {spec.partition(":")[0] for spec in SPECS} == set(COMPRESSORS)
