"""Architectures of the zoo train as placed, by the tool's own check; what it says of a model that does not."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from baechi.errors import BaechiError

TOOLS = Path(__file__).parents[2] / "tools"
WORK = (
    "batch norm, dropout",
    "buffers written and tied",
    "frozen backbone",
    "lstm, 2 layers",
    "moe, every expert",
    "tied autoencoder",
    "transformer encoder",
    "unused parameters",
)
REFUSED = {
    "checkpoint, reentrant": ("B702", "use_reentrant=False"),
    "embedding, sparse": ("B707", "the gradient of '0.weight' is sparse"),
    "lstm, packed": ("B701", "_zoo_torch.py:"),
    "moe, chosen tokens": ("B701", "the shape of a result depends on the data"),
}
FROM_CONFIGS = ("gpt2", "patchtst")  # the second makes tensors in another layout than torch's shape rules say


@pytest.fixture(scope="module")
def zoo() -> Iterator[ModuleType]:
    """The tool, and one thread: more add up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import zoo as tool

        yield tool
    torch.set_num_threads(threads)
    for name in ("zoo", "_zoo_configs", "_zoo_text", "_zoo_torch", "_zoo_transformers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", WORK)
def test_a_network_of_torch_modules_trains_as_placed(zoo: Any, name: str) -> None:
    row = zoo.check(name)
    assert row.works, row
    assert row.devices > 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FROM_CONFIGS)
def test_a_model_of_transformers_trains_as_placed(zoo: Any, name: str) -> None:
    pytest.importorskip("transformers")
    row = zoo.check(name)
    assert row.works, row
    assert row.loss_error == row.weight_error == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured_says_why(zoo: Any, name: str) -> None:
    code, text = REFUSED[name]
    with pytest.raises(BaechiError) as caught:
        zoo.check(name)
    assert caught.value.code == code
    assert text in caught.value.what
    assert caught.value.help


def test_other_numbers_do_not_work(zoo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check notices a step that forgets one parameter."""
    capture = zoo.capture

    def forgetful(module: Any, *args: Any, **kwargs: Any) -> Any:
        frozen = copy.deepcopy(module)
        next(iter(frozen.parameters())).requires_grad_(False)
        return capture(frozen, *args, **kwargs)

    monkeypatch.setattr(zoo, "capture", forgetful)
    row = zoo.check("unused parameters")
    assert not row.works
    assert row.weight_error > 1e-3


def test_a_failure_is_a_row_of_the_page(zoo: Any) -> None:
    rows = [zoo.attempt("moe, chosen tokens"), zoo.attempt("bilinear")]
    assert [r.works for r in rows] == [False, True]
    page = zoo.page(rows, "python tools/zoo.py")
    assert "1 of 2 architectures" in page
    assert page.index("| bilinear | torch.nn |") < page.index("## Does not") < page.index("| moe, chosen tokens |")


def test_the_page_lists_the_architectures_of_the_tool(zoo: Any) -> None:
    text = (TOOLS.parent / "models" / "ZOO.md").read_text(encoding="utf-8")
    listed = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")]
    assert sorted(n for n in listed if n != "architecture") == list(zoo.names())
    assert len(listed) - 2 >= 40
