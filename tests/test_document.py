"""Errors in documents name the file and the element."""

from pathlib import Path

import pytest

from baechi.document import Entry, Source, load_json, load_toml, nearest
from baechi.errors import BaechiError


def read(path: Path) -> Entry:
    return load_json(path, "B405", missing="B401", malformed="B402")


def entry(value: object) -> Entry:
    return Entry({"a": [value]}, Source("f.json", "B405")).at("a").items()[0]


@pytest.mark.parametrize(
    ("reader", "bad", "what"),
    [
        (Entry.text, 3, "a string, found 3"),
        (Entry.integer, 1.5, "a whole number, found 1.5"),
        (Entry.integer, True, "a whole number, found true"),
        (Entry.number, "1", 'a number, found "1"'),
        (Entry.number, None, "a number, found null"),
        (Entry.flag, 1, "true or false, found 1"),
        (Entry.items, {}, "an array, found {}"),
        (Entry.table, [], "an object, found []"),
    ],
)
def test_a_wrong_type_is_named_with_its_place(reader, bad, what) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BaechiError) as caught:
        reader(entry(bad))
    assert caught.value.what == f"f.json: $.a[0]: expected {what}"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_no_number(number: float) -> None:
    with pytest.raises(BaechiError, match=r"\$\.a\[0\]") as caught:
        entry(number).number()
    assert caught.value.code == "B206"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_no_number_is_found_wherever_it_stands(tmp_path: Path, number: str) -> None:
    (tmp_path / "f.json").write_text('{"x": 1, "y": [{"z": ' + number + "}]}")
    with pytest.raises(BaechiError, match=r"\$\.y\[0\]\.z") as caught:
        read(tmp_path / "f.json")
    assert caught.value.code == "B206"


def test_a_number_too_large_for_a_float(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"x": 1e999}')
    with pytest.raises(BaechiError) as caught:
        read(tmp_path / "f.json").at("x").number()
    assert caught.value.code == "B206"


def test_truncated_json_says_where(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{\n "x": [1, 2')
    with pytest.raises(BaechiError, match="line 2, column 12") as caught:
        read(tmp_path / "f.json")
    assert caught.value.code == "B402"
    assert "truncated" in caught.value.help


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(BaechiError) as caught:
        read(tmp_path / "f.json")
    assert caught.value.code in ("B401", "B402")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(BaechiError) as caught:
            read(path)
        assert caught.value.code == "B401"


def test_what_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("a = = 1")
    with pytest.raises(BaechiError, match="line 1, column 5") as caught:
        load_toml(tmp_path / "f.toml", "B305", missing="B308", malformed="B305")
    assert caught.value.code == "B305"


def test_an_unknown_entry_comes_with_the_nearest() -> None:
    with pytest.raises(BaechiError) as caught:
        Entry({"memry": 1}, Source("f", "B305")).only(["memory", "name"])
    assert caught.value.help == "did you mean 'memory'?"
    assert nearest("zzz", ["a", "b"], "one of: ") == "one of: a, b"
