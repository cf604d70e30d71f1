"""What doctor compiles: no placement needs a loop that it left out."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json
from itertools import product
from numba.core.dispatcher import Dispatcher
from baechi.cost import Problem
from baechi.errors import BaechiError
from baechi.ir.cluster import Cluster, Device, Link
from baechi.ir.plan import OBJECTIVES
from baechi.models.graphs import random_dag
from baechi.placers import PLACERS, get_placer, make_plan
from baechi.profile.kernels import PARTS, compile_part, place_steps

def compiled():
    made = [d for d in gc.get_objects() if isinstance(d, Dispatcher)]
    return {f"{d.py_func.__module__}.{d.__name__}" for d in made if d.nopython_signatures}

for part, objective in product(PARTS, OBJECTIVES):
    compile_part(part, objective)
place_steps()
before, placed = compiled(), 0
for seed, nbytes, objective in product((1, 2), (1 << 40, 400), OBJECTIVES):
    cluster = Cluster(tuple(Device(f"d{k}", nbytes) for k in range(3)), Link(2e-6, 1e8), contention="sequential")
    problem = Problem(random_dag(seed, 40, groups=seed == 2), cluster, None, objective)
    for name in PLACERS.keys() - {"exact", "metis"}:
        try:
            make_plan(get_placer(name, **({"work": 1e6} if name == "auto" else {})), problem, 0)
            placed += 1
        except BaechiError:
            pass
print(json.dumps([placed, sorted(n for n in compiled() - before if n.startswith("baechi."))]))
"""


def test_nothing_is_left_to_compile() -> None:
    """In a process of its own, for what other tests compiled does not count."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    placed, new = json.loads(ran.stdout)
    assert placed > 20
    assert new == []
