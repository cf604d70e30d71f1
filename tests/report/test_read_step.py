"""Plans and profiles from disk, and what is wrong with other files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baechi.api import place_graph, timeline_of
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.json import plan_to_dict, timeline_to_dict, write_plan
from baechi.models.graphs import random_dag
from baechi.profile.measured import Measured
from baechi.profile.profiled import Profiled, profile_dict
from baechi.report.files import read_step

CLUSTER = Cluster((Device("d:0", 1 << 50), Device("d:1", 1 << 50)), Link(1e-6, 1e9))
GRAPH = random_dag(2, 12)
PLAN = place_graph(GRAPH, CLUSTER, "round-robin")
TIMELINE = timeline_of(GRAPH, PLAN)
MEASURED = Measured(2.0, (1.0, 2.0, 3.0), 0.5, (0.7, 0.6), {"d:0": 5, "d:1": 6})


def profile() -> dict[str, Any]:
    return profile_dict(PLAN, Profiled(MEASURED, TIMELINE, 0.01, {"unit": {"k": 0.25}}))


def written(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "step.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_profile_comes_back(tmp_path: Path) -> None:
    found = read_step(written(tmp_path, profile()))
    assert found.plan == PLAN
    assert found.profiled is not None
    assert found.profiled.measured == MEASURED
    assert timeline_to_dict(found.profiled.timeline) == timeline_to_dict(TIMELINE)
    assert (found.profiled.overhead, found.profiled.ops) == (0.01, {"unit": {"k": 0.25}})


def test_a_plan_has_no_run(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / "plan.json")
    found = read_step(tmp_path / "plan.json")
    assert (found.plan, found.profiled) == (PLAN, None)


def _other_schema(data: dict[str, Any]) -> None:
    data["schema"] = "baechi/graph/1"


def _no_timeline(data: dict[str, Any]) -> None:
    del data["timeline"]


def _unknown_op(data: dict[str, Any]) -> None:
    data["timeline"]["ops"][3][0] = "nobody"


def _missing_op(data: dict[str, Any]) -> None:
    del data["timeline"]["ops"][3]


def _backwards(data: dict[str, Any]) -> None:
    data["timeline"]["ops"][3][2] = data["timeline"]["ops"][3][3] + 1


def _unknown_device(data: dict[str, Any]) -> None:
    data["peak_bytes"]["gpu"] = 3


def _negative(data: dict[str, Any]) -> None:
    data["step_seconds"]["median"] = -1.0


@pytest.mark.parametrize(
    ("spoil", "code", "what"),
    [
        (_other_schema, "B403", 'the schema is "baechi/graph/1", not "baechi/plan/1" or "baechi/profile/1"'),
        (_no_timeline, "B405", "'timeline' is missing"),
        (_unknown_op, "B405", r"\$\.timeline\.ops\[3\]: the plan has no op 'nobody'"),
        (_missing_op, "B405", "of the plan did not run"),
        (_backwards, "B405", r"\$\.timeline\.ops\[3\]: it lasts from"),
        (_unknown_device, "B405", r"\$\.peak_bytes\.gpu: 'gpu' is no device"),
        (_negative, "B405", "expected a time of at least 0, found -1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], code: str, what: str) -> None:
    data = profile()
    spoil(data)
    with pytest.raises(BaechiError, match=what) as caught:
        read_step(written(tmp_path, data))
    assert caught.value.code == code


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    whole = json.dumps(profile())
    path = tmp_path / "step.json"
    path.write_text(whole[: int(share * len(whole))], encoding="utf-8")
    with pytest.raises(BaechiError, match="not JSON") as caught:
        read_step(path)
    assert caught.value.code == "B402"
    with pytest.raises(BaechiError, match="cannot read") as caught:
        read_step(tmp_path / "none.json")
    assert caught.value.code == "B401"


def test_a_plan_in_a_profile_is_checked_in_place(tmp_path: Path) -> None:
    data = profile()
    data["plan"] = plan_to_dict(PLAN)
    data["plan"]["device"][GRAPH.ops[0].name] = "gpu"
    with pytest.raises(BaechiError, match=r"\$\.plan\.device\..*'gpu' is no device of the cluster"):
        read_step(written(tmp_path, data))
