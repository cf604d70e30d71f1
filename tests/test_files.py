"""A file is written whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baechi.errors import BaechiError
from baechi.files import write_atomic


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", "first")
    write_atomic(str(tmp_path / "a.json"), "ä second")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "ä second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("place", ["missing/a.json", "."])
def test_a_bad_place_is_a_user_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(BaechiError) as caught:
        write_atomic(tmp_path / place, "text")
    assert caught.value.code == "B404"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_device() -> None:
    with pytest.raises(BaechiError, match="cannot write /dev/full: No space left on device"):
        write_atomic("/dev/full", "x" * 100_000)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.json").write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BaechiError, match="No space left on device"):
        write_atomic(tmp_path / "plan.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    assert (tmp_path / "plan.json").read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_file_size_limit_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("old")
    code = (
        "import resource, sys\n"
        "from baechi.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(sys.argv[1], 'x' * 100_000)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "plan.json")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "error[B404]: cannot write" in ran.stderr
    assert "File too large" in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    assert (tmp_path / "plan.json").read_text() == "old"
