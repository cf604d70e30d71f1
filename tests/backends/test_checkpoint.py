"""Checkpoints: what one placement saves, another reads; they are whole or absent."""

import os
import pickle
import signal
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import filesystem

from baechi.backends.pytorch.checkpoint import Shard, load, save
from baechi.backends.pytorch.contents import contents
from baechi.backends.pytorch.statefile import export, load_plain
from baechi.backends.pytorch.steps import latest, prune, step_directory
from baechi.errors import BaechiError
from tests.backends.apart import exit_codes, free_port
from tests.backends.peaks import peak

TIED = {"head.weight": "embed.weight"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 6)
        self.head.weight = self.embed.weight
        self.register_buffer("transient", torch.ones(3), persistent=False)
        self.gain = nn.Parameter(torch.rand(2, 3, 4).to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.embed(x))).sum() + self.gain.float().sum()
        return out


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net()
    adam = torch.optim.AdamW(net.parameters())
    net(torch.tensor([1, 2, 5])).backward()
    adam.step()
    return net, adam


def whole() -> Shard:
    net, adam = trained()
    state = {name: {**adam.state[p], "note": ("plain", 3)} for name, p in net.named_parameters()}
    extra = {"step": 10, "groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}
    return Shard(dict(net.named_parameters()), dict(net.named_buffers()), state, extra, torch.get_rng_state())


def part(shard: Shard, rank: int, size: int) -> Shard:
    """Every size-th parameter and buffer; the last process has the generator."""

    def mine(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in list(values)[rank::size]}

    parameters = mine(shard.parameters)
    state = {name: shard.optimizer[name] for name in parameters}
    rng = shard.rng if rank == size - 1 else None
    return Shard(parameters, mine(shard.buffers), state, shard.extra, rng)


def shapes(values: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: t.shape for name, t in values.items()}


def read(directory: Path, like: Shard) -> Shard:
    return load(directory, shapes(like.parameters), shapes(like.buffers))


def assert_equal(got: Any, wanted: Any) -> None:
    if isinstance(wanted, Tensor):
        torch.testing.assert_close(got, wanted.detach(), rtol=0, atol=0)
    elif isinstance(wanted, Mapping):
        assert sorted(got) == sorted(wanted)
        for key in wanted:
            assert_equal(got[key], wanted[key])
    else:
        assert got == wanted


def assert_same(got: Shard, wanted: Shard) -> None:
    assert_equal(vars(got) | {"rng": None}, vars(wanted) | {"rng": None})
    assert_equal(got.rng, whole().rng)


def _process(rank: int, size: int, port: int, act: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    act(rank, size, *args)
    dist.destroy_process_group()


def spawn(size: int, act: Callable[..., None], *args: Any) -> list[int | None]:
    """Run it in processes of one gloo group; their exit codes."""
    port = free_port()
    preload = ["torch.distributed.checkpoint", "torch._dynamo"]
    return exit_codes(_process, [(rank, size, port, act, args) for rank in range(size)], preload)


def save_part(rank: int, size: int, directory: Path) -> None:
    save(directory, part(whole(), rank, size), tied=TIED, keys=list(Net().state_dict()))


def load_part(rank: int, size: int, directory: Path) -> None:
    mine = part(whole(), rank, size)
    assert_same(read(directory, mine), mine)


def save_plain_thing(rank: int, size: int, directory: Path) -> None:
    shard = part(whole(), rank, size)
    bad = Shard(shard.parameters, shard.buffers, {"gain": {"odd": object}} if rank == 1 else {}, {})
    with pytest.raises(BaechiError, match="no plain data") as error:
        save(directory, bad, tied=TIED)
    assert error.value.code == "B614"


def save_and_die(rank: int, size: int, directory: Path) -> None:
    """The second process is killed in the middle of writing its tensors."""
    if rank == 1:

        def killed(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        filesystem._write_item = killed
    with pytest.raises((BaechiError, RuntimeError)):
        save(directory, part(whole(), rank, size), tied=TIED)


def test_two_processes_save_and_three_load(tmp_path: Path) -> None:
    directory = step_directory(tmp_path, 10)
    assert spawn(2, save_part, directory) == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]
    assert spawn(3, load_part, directory) == [0, 0, 0]
    assert_same(read(directory, whole()), whole())
    path = tmp_path / "plain.pt"
    export(directory, path)
    assert_exported(path)


def test_an_error_of_one_process_is_everyones(tmp_path: Path) -> None:
    assert spawn(2, save_plain_thing, step_directory(tmp_path, 1)) == [0, 0]
    assert latest(tmp_path) is None


def test_a_process_killed_while_saving_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    before = step_directory(tmp_path, 1)
    save(before, whole(), tied=TIED)
    codes = spawn(2, save_and_die, step_directory(tmp_path, 2))
    assert codes == [0, -signal.SIGKILL]
    assert latest(tmp_path) == before
    assert_same(read(before, whole()), whole())
    assert len(list(tmp_path.iterdir())) == 2  # and what the killed one left
    prune(tmp_path)
    assert list(tmp_path.iterdir()) == [before]


def test_one_process_without_a_group(tmp_path: Path) -> None:
    directory = step_directory(tmp_path, 10)
    save(directory, whole(), tied=TIED)
    for rank in range(2):
        mine = part(whole(), rank, 2)
        assert_same(read(directory, mine), mine)
    found = contents(directory)
    assert (found.tied, found.extra, found.keys) == (TIED, whole().extra, ())
    assert found.parameters == {n: tuple(p.shape) for n, p in sorted(whole().parameters.items())}
    assert load(directory, {}, {}, optimizer=False).extra == whole().extra


def test_channels_stay_last(tmp_path: Path) -> None:
    directory, path = step_directory(tmp_path, 1), tmp_path / "plain.pt"
    last = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    tensors = {"last": last, "gap": torch.rand(4, 6)[:, ::2], "spread": torch.rand(3, 1).expand(3, 4)}
    save(directory, Shard(tensors, {}, {"last": {"exp_avg": last * 2}}), tied={})
    got = load(directory, shapes(tensors), {})
    assert_equal(got.parameters, tensors)
    assert got.parameters["last"].stride() == last.stride()
    assert got.optimizer["last"]["exp_avg"].stride() == last.stride()
    export(directory, path)
    assert_equal(torch.load(path, weights_only=True), tensors)


def test_saving_again_replaces(tmp_path: Path) -> None:
    directory = step_directory(tmp_path, 1)
    save(directory, whole(), tied=TIED)
    save(directory, Shard({"a": torch.ones(2)}, {}, {}, {}), tied={})
    assert_equal(load(directory, {"a": (2,)}, {}).parameters, {"a": torch.ones(2)})
    assert list(tmp_path.iterdir()) == [directory]


def test_latest_and_prune(tmp_path: Path) -> None:
    assert latest(tmp_path / "nothing") is None
    assert latest(tmp_path) is None
    steps = [step_directory(tmp_path, n) for n in (2, 30, 100)]
    for directory in reversed(steps):
        save(directory, Shard({"a": torch.ones(2)}, {}, {}, {}), tied={})
    (tmp_path / "step-00000200").mkdir()
    (tmp_path / "notes").mkdir()
    assert latest(tmp_path) == steps[2]
    assert prune(tmp_path) == (steps[0],)
    assert prune(tmp_path, keep=0) == (steps[1],)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes", "step-00000100", "step-00000200"]


def code(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(BaechiError) as error:
        act()
    return error.value.code, error.value.what


def test_no_checkpoint_another_model_and_damage(tmp_path: Path) -> None:
    directory = step_directory(tmp_path, 1)
    assert code(lambda: load(directory, {}, {}))[0] == "B611"
    save(directory, whole(), tied=TIED)
    assert code(lambda: load(directory, {"gain": (2, 3, 4), "other": (1,)}, {})) == (
        "B612",
        f"the checkpoint at {directory} is of another model: it has no 'other'",
    )
    assert code(lambda: load(directory, {"gain": (2, 3)}, {})) == (
        "B612",
        f"the checkpoint at {directory} is of another model: 'gain' has shape [2, 3, 4] there and [2, 3] here",
    )
    data = next(directory.glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:100])
    assert code(lambda: read(directory, whole()))[0] == "B613"
    data.unlink()
    assert code(lambda: read(directory, whole()))[0] == "B613"
    (directory / ".metadata").unlink()
    assert code(lambda: read(directory, whole()))[0] == "B613"
    assert latest(tmp_path) is None


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert code(lambda: save(tmp_path / "file" / "step-00000001", whole(), tied=TIED))[0] == "B614"


def assert_exported(path: Path) -> None:
    net, _ = trained()
    got = torch.load(path, weights_only=True)
    assert list(got) == list(net.state_dict())
    assert_equal(got, net.state_dict())
    assert got["head.weight"].data_ptr() == got["embed.weight"].data_ptr()
    Net().load_state_dict(got)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_export_reads_as_a_plain_state_dict(tmp_path: Path) -> None:
    directory, path = step_directory(tmp_path, 1), tmp_path / "plain.pt"
    save(directory, whole(), tied=TIED)
    export(directory, path, keys=list(Net().state_dict()))
    assert_exported(path)
    export(directory, path)
    assert "transient" in torch.load(path, weights_only=True)
    assert code(lambda: export(directory, path, keys=["nothing"]))[0] == "B612"
    assert code(lambda: export(directory, tmp_path / "none" / "plain.pt"))[0] == "B614"


def test_memory_of_export_and_load_is_that_of_a_tensor(tmp_path: Path) -> None:
    one, count = 5 << 20, 12
    directory, path = step_directory(tmp_path, 1), tmp_path / "plain.pt"
    save(directory, Shard({f"w{i}": torch.full((one // 4,), float(i)) for i in range(count)}), tied={})
    assert peak(lambda: export(directory, path)) <= 2.1 * one  # torch reads, then copies
    assert_equal(load_plain(path, ["w3"]), {"w3": torch.full((one // 4,), 3.0)})
    assert peak(lambda: load_plain(path, ["w3", "w5"])) <= 2.1 * one
    assert peak(lambda: load(directory, {"w7": (one // 4,)}, {})) <= 2.1 * one


def test_chosen_tensors_of_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    net, _ = trained()
    base = torch.arange(12.0).view(3, 4)
    state = {**net.state_dict(), "row": base[1], "column": base[:, 1], "turned": base.t(), "none": torch.empty(0, 3)}
    torch.save(state, path)
    for name, value in state.items():
        got = load_plain(path, [name])
        assert_equal(got, {name: value})
    assert load_plain(path, ["turned"])["turned"].stride() == base.t().stride()
    assert code(lambda: load_plain(path, ["norm"]))[0] == "B612"
    assert code(lambda: load_plain(tmp_path / "nothing", ["a"]))[0] == "B611"
    torch.save([1, 2], path)
    assert code(lambda: load_plain(path, ["a"]))[0] == "B613"
    path.write_bytes(pickle.dumps("text")[:5])
    assert code(lambda: load_plain(path, ["a"]))[0] == "B613"
