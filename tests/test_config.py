"""Clusters from shorthands, presets and TOML files."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from baechi.config import LOCAL, local_cluster, parse_cluster, presets, resize
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link


def caps(cluster: Cluster) -> list[int | None]:
    return [d.memory_bytes for d in cluster.devices]


def code_of(spec: str) -> str:
    with pytest.raises(BaechiError) as caught:
        parse_cluster(spec)
    return caught.value.code


def test_sizes_are_devices_on_this_machine() -> None:
    cluster = parse_cluster("4x8GiB")
    assert [d.name for d in cluster.devices] == ["cpu:0", "cpu:1", "cpu:2", "cpu:3"]
    assert caps(cluster) == [8 * 2**30] * 4
    assert {(d.type, d.backend, d.host) for d in cluster.devices} == {("cpu", "cpu", "host0")}
    assert cluster.cores == {"host0": len(os.sched_getaffinity(0))}
    assert cluster.link == Link(30e-6, 8e9)
    assert cluster.contention == "duplex"


def test_percentages_are_fractions_of_the_peak() -> None:
    cluster = parse_cluster("4x30%")
    assert [d.memory_fraction for d in cluster.devices] == [0.3] * 4
    assert caps(cluster.resolve(1000)) == [300] * 4


def test_a_preset_brings_its_data_sheet() -> None:
    device = parse_cluster("2xrtx2080").devices[1]
    assert (device.name, device.type, device.backend) == ("cuda:1", "rtx2080", "cuda")
    assert device.memory_bytes == 8 * 2**30
    assert device.flops_per_second["float32"] == pytest.approx(10.1e12)
    assert device.bytes_per_second == 448e9


@pytest.mark.parametrize(
    "spec", ["rtx2080+2xrtx3060:8GiB", "RTX-2080, 2xRTX 3060:8gib", "1xrtx_2080 + 2xrtx3060:8192MiB"]
)
def test_mixes(spec: str) -> None:
    cluster = parse_cluster(spec)
    assert [(d.name, d.type) for d in cluster.devices] == [
        ("cuda:0", "rtx2080"),
        ("cuda:1", "rtx3060"),
        ("cuda:2", "rtx3060"),
    ]
    assert caps(cluster) == [8 * 2**30] * 3


def test_a_pair_is_joined_by_the_slower_link() -> None:
    cluster = parse_cluster("rtx2080+2xrtx3060")
    old, new = presets()["rtx2080"].link, presets()["rtx3060"].link
    assert old.bytes_per_second < new.bytes_per_second
    assert cluster.link_between("cuda:0", "cuda:2") == old
    assert cluster.link_between("cuda:1", "cuda:2") == cluster.link_between("cuda:2", "cuda:1") == new


def test_boards_are_hosts_of_their_own_joined_by_ethernet() -> None:
    cluster = parse_cluster("2xjetson-nano+raspberry-pi-5")
    assert len({d.host for d in cluster.devices}) == 3
    assert cluster.link.bytes_per_second == pytest.approx(117e6)
    assert not cluster.cores


def test_memory_of_a_preset_can_be_a_share() -> None:
    assert parse_cluster("4xrtx2080:30%").devices[0].memory_fraction == 0.3
    assert caps(parse_cluster("4xcpu:2GiB")) == [2 * 2**30] * 4


def test_a_file_may_name_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('[[device]]\npreset = "local"\ncount = 2\nmemory = "1GiB"\n')
    assert parse_cluster(str(file)).to_dict() == parse_cluster("2xlocal:1GiB").to_dict()


def test_local_devices_share_what_is_free() -> None:
    one, four = (parse_cluster(spec).devices[0].cap for spec in ("local", "4xlocal"))
    assert 0.5 < 4 * four / one < 2  # other programs come and go between the two


def test_measured_rates_replace_the_defaults() -> None:
    measured = {"flops_per_second": 1e12, "link_latency_seconds": 1e-6}
    for cluster in (parse_cluster("2x1GiB", measured=measured), local_cluster(2, "1GiB", measured)):
        assert cluster.devices[0].flops_per_second == {"float32": 1e12}
        assert cluster.devices[0].bytes_per_second == LOCAL["bytes_per_second"]
        assert cluster.link == Link(1e-6, LOCAL["link_bytes_per_second"])


def test_contention_can_be_said() -> None:
    assert parse_cluster("4x8GiB", contention="sequential").contention == "sequential"


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "4",
        "4x",
        "0x8GiB",
        "4x0%",
        "4x0GiB",
        "-4x8GiB",
        "4x8QiB",
        "4x8GiB++rtx2080",
        "9999x1GiB",
        "rtx2080:lots",
        "a/b",
    ],
)
def test_what_is_no_cluster(spec: str) -> None:
    assert code_of(spec) == "B306"


def test_an_unknown_preset_comes_with_the_closest() -> None:
    with pytest.raises(BaechiError) as caught:
        parse_cluster("4xrtx2081")
    assert caught.value.code == "B307"
    assert "'rtx2080'" in caught.value.help


@given(st.text(max_size=12))
@example("0K")  # sizes need their B
@example("4x8\u212aB")  # the Kelvin sign is no K
def test_any_text_is_a_cluster_or_a_user_error(spec: str) -> None:
    try:
        assert len(parse_cluster(spec)) >= 1
    except BaechiError as error:
        assert error.code in ("B306", "B307", "B308")  # noqa: PT017 - most texts are none, some are


def test_presets_are_plausible() -> None:
    assert len(presets()) >= 16
    for preset in presets().values():
        rates = preset.flops_per_second
        assert 2**32 <= preset.memory_bytes <= 2**38, preset
        assert 1e11 < rates["float32"] < 1e14, preset
        assert set(rates) <= {"float32", "tfloat32", "float16", "bfloat16"}, preset
        assert 1e10 < preset.bytes_per_second < 1e13, preset
        assert 1e-6 <= preset.launch_seconds <= 1e-4, preset
        assert 0 < preset.efficiency <= 1, preset
        assert preset.backend in ("cpu", "cuda"), preset
        assert preset.link.bytes_per_second < preset.bytes_per_second, preset


@pytest.mark.parametrize(
    ("name", "memory", "float32", "float16", "bandwidth"),
    [
        ("t4", 16 * 2**30, 8.1e12, 65e12, 320e9),
        ("a100-40gb", 40 * 2**30, 19.5e12, 312e12, 1555e9),
        ("h100", 80e9, 67e12, 989e12, 3.35e12),
        ("rtx4090", 24 * 2**30, 82.6e12, 165.2e12, 1008e9),
    ],
)
def test_presets_against_their_data_sheets(
    name: str, memory: float, float32: float, float16: float, bandwidth: float
) -> None:
    preset = presets()[name]
    found = (preset.memory_bytes, preset.flops_per_second["float32"], preset.flops_per_second["float16"])
    assert found == pytest.approx((memory, float32, float16))
    assert preset.bytes_per_second == pytest.approx(bandwidth)


FILE = """
contention = "parallel"

[[device]]
preset = "rtx2080"
count = 2
memory = "30%"

[[device]]
name = "old"
memory = "4GiB"
flops_per_second = { float32 = 1e12 }
bytes_per_second = 1e11
host = "attic"

[[links]]
source = "cuda:0"
destination = "old"
latency_seconds = 0.001
bytes_per_second = 1e8
"""


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(FILE)
    cluster = parse_cluster(str(tmp_path / "lab.toml"))
    assert [d.name for d in cluster.devices] == ["cuda:0", "cuda:1", "old"]
    assert [d.memory_fraction for d in cluster.devices] == [0.3, 0.3, None]
    assert cluster.devices[2] == Device(
        "old", 4 * 2**30, flops_per_second={"float32": 1e12}, bytes_per_second=1e11, host="attic"
    )
    assert cluster.contention == "parallel"
    assert cluster.link_between("cuda:0", "old") == Link(0.001, 1e8)
    assert parse_cluster(str(tmp_path / "lab.toml"), contention="duplex").contention == "duplex"


@pytest.mark.parametrize(
    ("right", "wrong", "what"),
    [
        ("contention =", "contentoin =", "did you mean 'contention'?"),
        ("memory =", "memry =", "did you mean 'memory'?"),
        ('"parallel"', '"paralel"', "$.contention: expected one of sequential, duplex, parallel"),
        ("count = 2", 'count = "2"', "$.device[0].count: expected a whole number"),
        ('"4GiB"', '"4Gob"', "$.device[1].memory: expected a size"),
        ('memory = "4GiB"', "", "$.device[1]: 'memory' is missing"),
        ("1e11", '"fast"', "$.device[1].bytes_per_second: expected a number"),
        ('"old"\nmemory', '"cuda:1"\nmemory', "two devices of the cluster have one name"),
        ('destination = "old"', 'destination = "new"', "'new', which is no device"),
        ("[[device]]", "[[device", "is not TOML"),
        ("1e11", "-1.0", "$.device[1].bytes_per_second: expected a number above 0"),
        ("float32 = 1e12", "float32 = 0", "$.device[1].flops_per_second.float32: expected a number above 0"),
        (
            "latency_seconds = 0.001",
            "latency_seconds = -1",
            "$.links[0].latency_seconds: expected a number of at least 0",
        ),
        ('destination = "old"', "", "$.links[0]: 'destination' is missing"),
    ],
)
def test_a_typo_in_a_file(tmp_path: Path, right: str, wrong: str, what: str) -> None:
    path = tmp_path / "lab.toml"
    path.write_text(FILE.replace(right, wrong))
    with pytest.raises(BaechiError) as caught:
        parse_cluster(str(path))
    assert caught.value.code == "B305"
    assert what in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_without_devices_or_with_an_unknown_one(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    for text, code in (("device = []", "B305"), ("", "B305"), ('[[device]]\npreset = "rtx2081"', "B307")):
        path.write_text(text)
        with pytest.raises(BaechiError, match=r"lab\.toml: \$") as caught:
            parse_cluster(str(path))
        assert caught.value.code == code
    path.unlink()
    assert code_of(str(path)) == "B308"


def test_a_file_written_from_a_cluster_reads_back(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(
        'link = { latency_seconds = 1e-5, bytes_per_second = 1e9 }\n[[device]]\nname = "a"\nmemory_bytes = 8\n'
    )
    assert parse_cluster(str(tmp_path / "two.toml")).to_dict() == Cluster((Device("a", 8),), Link(1e-5, 1e9)).to_dict()


def test_a_device_may_work_in_host_memory(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text(
        '[[device]]\npreset = "rtx2080"\n[[device]]\nname = "cpu"\nmemory = "64GiB"\nin_host_memory = true\n'
    )
    cluster = parse_cluster(str(path))
    assert [d.in_host_memory for d in cluster.devices] == [False, True]
    assert "in_host_memory" not in cluster.to_dict()["device"][0]
    assert cluster.to_dict()["device"][1]["in_host_memory"] is True
    path.write_text(path.read_text().replace("true", '"yes"'))
    assert code_of(str(path)) == "B305"


def test_resize() -> None:
    two = parse_cluster("rtx2080+rtx3060")
    assert [(d.name, d.type) for d in resize(two, devices=3).devices] == [
        ("cuda:0", "rtx2080"),
        ("cuda:1", "rtx3060"),
        ("cuda:2", "rtx2080"),
    ]
    assert [d.name for d in resize(two, devices=1).devices] == ["cuda:0"]
    assert caps(resize(two, memory="4")) == [4, 4]
    assert resize(two, memory="30%").devices[1].memory_fraction == 0.3
    assert resize(parse_cluster("rtx2080+2xrtx3060"), devices=1).links == {}
    for arguments in ({"devices": 0}, {"memory": "much"}):
        with pytest.raises(BaechiError, match=r"'(0|much)'"):
            resize(two, **arguments)  # type: ignore[arg-type]
