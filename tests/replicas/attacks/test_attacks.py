"""What the attackers send."""

import numpy as np
import pytest
import torch

from baechi.errors import BaechiError
from baechi.replicas import attack
from baechi.replicas.attacks import ATTACKS

HONEST = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32) + 1.0
OWN = np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)
EXTRA = {"label-flip": {"flipped": OWN}}


def test_what_is_sent():
    mean = HONEST.mean(0)
    np.testing.assert_allclose(attack("ipm", HONEST, 3, epsilon=0.5), np.tile(-0.5 * mean, (3, 1)), rtol=1e-5)
    np.testing.assert_array_equal(attack("sign-flip", HONEST, 3, own=OWN, scale=2.0), -2.0 * OWN)
    np.testing.assert_array_equal(attack("sign-flip", HONEST, 8)[6:], -HONEST[:2])
    np.testing.assert_array_equal(attack("label-flip", HONEST, 3, flipped=OWN), OWN)
    np.testing.assert_allclose(
        attack("omniscient", HONEST, 2, scale=1e3), np.tile(-1e3 * HONEST.sum(0), (2, 1)), rtol=1e-5
    )
    little = attack("a-little-is-enough", HONEST, 2, z=1.5)
    np.testing.assert_allclose(little, np.tile(mean - 1.5 * HONEST.std(0, ddof=1), (2, 1)), rtol=1e-4, atol=1e-6)


def test_gaussian_has_its_deviation_and_is_a_function_of_the_seed():
    wide = np.zeros((4, 50_000), np.float32)
    sent = attack("gaussian", wide, 2, sigma=200.0, seed=3)
    assert sent.std() == pytest.approx(200.0, rel=0.02)
    np.testing.assert_array_equal(sent, attack("gaussian", wide, 2, seed=3))
    assert not np.array_equal(sent, attack("gaussian", wide, 2, seed=4))


def test_bit_flip_inverts_the_bits_of_the_first_coordinates():
    sent = attack("bit-flip", HONEST, 3, own=OWN, coordinates=7, bits=(32,))
    np.testing.assert_array_equal(sent[:, :7], -OWN[:, :7])
    np.testing.assert_array_equal(sent[:, 7:], OWN[:, 7:])
    flipped = OWN.view(np.uint32) ^ np.uint32((1 << 31) | (1 << 30) | (1 << 29) | (1 << 21))
    np.testing.assert_array_equal(attack("bit-flip", HONEST, 3, own=OWN).view(np.uint32), flipped)
    shards = attack("bit-flip", [HONEST[:, :5], HONEST[:, 5:]], 3, own=[OWN[:, :5], OWN[:, 5:]], coordinates=7)
    whole = attack("bit-flip", HONEST, 3, own=OWN, coordinates=7)
    np.testing.assert_array_equal(np.concatenate(shards, axis=1), whole)


def test_the_gambler_spoils_some_values_of_a_part():
    own = np.ones((3, 40_000), np.float32)
    sent = attack("gambler", np.ones((6, 40_000), np.float32), 3, own=own, probability=0.1, scale=50.0, part=0.25)
    hit = sent == -50.0
    assert hit[:, :10_000].mean() == pytest.approx(0.1, abs=0.01)
    assert not hit[:, 10_000:].any()
    assert (sent[~hit] == 1.0).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_forms_and_types(name):
    extra = EXTRA.get(name, {})
    assert attack(name, HONEST, 3, **extra).shape == (3, 40)
    assert attack(name, HONEST, 3, **extra).dtype == np.float32
    tensor = attack(name, torch.from_numpy(HONEST).double(), 3, **extra)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float64 or name == "label-flip"
    shards = attack(
        name, [HONEST[:, :10], HONEST[:, 10:]], 3, **({"flipped": [OWN[:, :10], OWN[:, 10:]]} if extra else {})
    )
    assert [shard.shape for shard in shards] == [(3, 10), (3, 30)]
    nobody = attack(name, HONEST, 0, **({"flipped": OWN[:0]} if extra else {}))
    assert nobody.shape == (0, 40)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_honest_vectors_stay(name):
    before, own = HONEST.copy(), OWN.copy()
    attack(name, HONEST, 3, **EXTRA.get(name, {}))
    if name in ("sign-flip", "bit-flip", "gambler"):
        attack(name, HONEST, 3, own=OWN)
    np.testing.assert_array_equal(HONEST, before)
    np.testing.assert_array_equal(OWN, own)


@pytest.mark.parametrize(
    ("name", "q", "options", "code", "says"),
    [
        ("flood", 1, {}, "B824", "no attack"),
        ("ipm", -1, {}, "B824", "by -1 peers"),
        ("ipm", 1.5, {}, "B824", "by 1.5 peers"),
        ("ipm", 1, {"sigma": 1.0}, "B824", "no option sigma"),
        ("label-flip", 1, {}, "B824", "needs flipped"),
        ("label-flip", 2, {"flipped": OWN}, "B823", "flipped has shapes"),
        ("sign-flip", 2, {"own": OWN}, "B823", "own has shapes"),
        ("gaussian", 1, {"sigma": -1.0}, "B824", "sigma"),
        ("gambler", 1, {"probability": 2.0}, "B824", "probability"),
        ("bit-flip", 1, {"bits": (33,)}, "B824", "bits"),
    ],
)
def test_bad_input(name, q, options, code, says):
    with pytest.raises(BaechiError, match=says) as caught:
        attack(name, HONEST, q, **options)
    assert caught.value.code == code


def test_nobody_honest():
    with pytest.raises(BaechiError, match="without peers"):
        attack("ipm", HONEST[:0], 3)
