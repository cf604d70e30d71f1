"""Files that ``torch.save`` makes of a state dict, written and read a tensor at a time."""

import pickle
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from baechi.backends.pytorch.contents import Contents, contents, read
from baechi.errors import BaechiError

__all__ = ["export", "load_plain"]

_AT_ONCE = 4 << 20  # bytes of small tensors that are read together
_ENTRY, _ENTRY_SIZE = b"PK\x01\x02", 46  # of a zip file's directory
_DESCRIPTOR = b"PK\x07\x08"


def export(checkpoint: str | Path, path: str | Path, keys: Sequence[str] = ()) -> None:
    """Write a checkpoint's weights as ``torch.save(model.state_dict(), path)`` does.

    Memory holds one tensor at a time, or 4 MiB of small ones, and torch's copy of the one it reads.

    Args:
        checkpoint: directory of the checkpoint.
        path: the file, which ``torch.load(path, weights_only=True)`` reads; it appears when whole.
        keys: the plain model's ``state_dict`` keys in their order; those given to `save` when
            empty, and every parameter, buffer and tied name when none were.

    Raises:
        BaechiError: B611 when no checkpoint is there, B612 on a key that it does not have, B613 when
            it is damaged, B614 when the file cannot be written.
    """
    found = contents(checkpoint)
    first = _first_names(found, keys or found.keys)
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        _outline(partial, found, first)
        _fill(partial, checkpoint, found, first)
        partial.replace(target)
    except OSError as error:
        raise BaechiError("B614", f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def load_plain(path: str | Path, names: Collection[str]) -> dict[str, Tensor]:
    """Read the named tensors of a file that ``torch.save(model.state_dict(), path)`` made.

    Memory holds these tensors only.

    Args:
        path: the file.
        names: keys of the state dict.

    Raises:
        BaechiError: B611 when there is no such file, B612 on a name that it does not have, B613 when
            it is no state dict.
    """
    outline = _read_outline(Path(path))
    for name in names:
        if not isinstance(outline.get(name), Tensor):
            raise BaechiError("B612", f"{path} is of another model: it has no tensor '{name}'")
    with Path(path).open("rb") as file:
        return {name: _read_tensor(file, outline[name]) for name in names}


def _first_names(found: Contents, keys: Sequence[str]) -> dict[str, str]:
    every = {**{n: n for n in (*found.parameters, *found.buffers)}, **found.tied}
    for key in keys:
        if key not in every:
            raise BaechiError("B612", f"the checkpoint is of another model: it has no '{key}'")
    return {key: every[key] for key in keys or every}


def _outline(path: Path, found: Contents, first: Mapping[str, str]) -> None:
    """The file with nothing where the tensors' bytes go."""
    path.touch()  # what forbids it is an OSError, which torch.save has none of
    with FakeTensorMode():
        fakes = {
            name: torch.empty(found.tensors[f"model.{name}"][0], dtype=found.tensors[f"model.{name}"][1], device="cpu")
            for name in dict.fromkeys(first.values())
        }
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(OrderedDict((key, fakes[name]) for key, name in first.items()), path)


def _fill(path: Path, checkpoint: str | Path, found: Contents, first: Mapping[str, str]) -> None:
    outline = _read_outline(path)
    offsets = {name: _offset(outline[key]) for key, name in first.items()}
    sums: dict[int, int] = {}
    with path.open("r+b") as file:
        for names in _batches(found, list(offsets)):
            values = read(checkpoint, found, [f"model.{name}" for name in names])
            sums |= _write_tensors(file, {offsets[name]: values.pop(f"model.{name}") for name in names})
        _set_sums(file, sums)


def _write_tensors(file: IO[bytes], tensors: dict[int, Tensor]) -> dict[int, int]:
    """Write tensors by offset; their checksums. The dict is emptied, for it is the last to hold them."""
    sums = {}
    while tensors:
        offset, tensor = tensors.popitem()
        data = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
        file.seek(offset)
        file.write(data)
        sums[offset] = zlib.crc32(data)
    return sums


def _batches(found: Contents, names: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    total = 0
    for name in names:
        shape, dtype = found.tensors[f"model.{name}"]
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        if batch and total + nbytes > _AT_ONCE:
            yield batch
            batch, total = [], 0
        batch.append(name)
        total += nbytes
    yield batch


def _set_sums(file: IO[bytes], sums: Mapping[int, int]) -> None:
    """Put the checksum of each record, found by where its bytes begin, where a zip file has it."""
    with zipfile.ZipFile(file) as archive:
        records, at = archive.infolist(), archive.start_dir
    for record in records:
        file.seek(record.header_offset + 26)
        begin = record.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
        file.seek(at)
        head = file.read(_ENTRY_SIZE)
        if begin in sums and head[:4] == _ENTRY:
            _overwrite(file, at + 16, sums[begin])
            file.seek(begin + record.file_size)
            if file.read(4) == _DESCRIPTOR:
                _overwrite(file, begin + record.file_size + 4, sums[begin])
        at += _ENTRY_SIZE + sum(struct.unpack("<HHH", head[28:34]))


def _overwrite(file: IO[bytes], at: int, number: int) -> None:
    file.seek(at)
    file.write(struct.pack("<I", number))


def _read_outline(path: Path) -> Mapping[str, Any]:
    """What is in the file, its tensors fake and with their place in the file."""
    if not path.is_file():
        raise BaechiError("B611", f"no file {path}")
    try:
        with FakeTensorMode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            found = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BaechiError("B613", f"{path} is no file of torch.save, or a part of one: {error}") from error
    if not isinstance(found, Mapping):
        raise BaechiError("B613", f"{path} holds no state dict but a {type(found).__name__}")
    return found


def _offset(tensor: Tensor) -> int:
    """Where the storage begins in the file."""
    offset: int | None = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if offset is None:
        raise BaechiError("B613", "the file is of an old format", help="load it with torch, and save it again")
    return offset


def _read_tensor(file: IO[bytes], fake: Tensor) -> Tensor:
    """Its own elements when they lie together, otherwise its whole storage."""
    offset, dense = _offset(fake), fake.is_contiguous()
    start = int(fake.storage_offset()) * fake.itemsize if dense else 0
    nbytes = fake.numel() * fake.itemsize if dense else fake.untyped_storage().nbytes()
    data = torch.empty(nbytes, dtype=torch.uint8, device="cpu")
    file.seek(offset + start)
    if nbytes and file.readinto(data.numpy().data) != nbytes:  # type: ignore[attr-defined]
        raise BaechiError("B613", "the file ends before its tensors do")
    empty = torch.empty(0, dtype=fake.dtype, device="cpu")
    if dense:
        return empty.set_(data.untyped_storage(), 0, fake.shape, fake.stride())
    return empty.set_(data.untyped_storage(), int(fake.storage_offset()), fake.shape, fake.stride()).clone()
