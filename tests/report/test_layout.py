"""Tables line up and nothing is wider than a terminal."""

from hypothesis import given
from hypothesis import strategies as st

from baechi.report.layout import WIDTH, bar, clip, fields, table

words = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=200)


@given(words, st.integers(8, 80))
def test_clipped_text_keeps_both_ends(text: str, width: int) -> None:
    short = clip(text, width)
    assert len(short) == min(len(text), width)
    assert short[:2] == text[:2]
    assert short[-2:] == text[-2:]


@given(st.floats(0, 3), st.integers(1, 40))
def test_a_bar_is_as_wide_as_asked(share: float, width: int) -> None:
    shown = bar(share, width)
    assert len(shown) == width + 2
    assert ("!" in shown) == (share > 1)


@given(st.lists(st.tuples(words.map(lambda s: s[:10]), words)))
def test_fields_stay_within_the_width(pairs: list[tuple[str, str]]) -> None:
    assert all(len(line) <= WIDTH for line in fields(pairs))


def test_columns_line_up() -> None:
    assert table([("name", "bytes"), ("a", "1"), ("long name", "1000")], "<>") == [
        "name       bytes",
        "a              1",
        "long name   1000",
    ]
