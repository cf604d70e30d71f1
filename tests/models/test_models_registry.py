import subprocess
import sys

import pytest

from baechi import models
from baechi.errors import BaechiError
from baechi.models.base import at_least, layer_index

NAMES = ("gnmt", "gpt2", "inception_v3", "mlp", "transformer")


def test_every_model_file_is_listed():
    assert models.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_specification_knows_its_name_and_options(name):
    spec = models.get(name)
    assert spec.name == name
    assert spec.options
    assert models.get(name, **spec.options).options == spec.options


def test_an_unknown_model_names_the_closest_and_all():
    with pytest.raises(BaechiError) as caught:
        models.get("inception_v9")
    assert caught.value.code == "B101"
    assert "did you mean 'inception_v3'?" in caught.value.help
    assert all(name in caught.value.help for name in NAMES)


@pytest.mark.parametrize("name", ["base", "graphs", "_gen_dag", "", "os.path", "../base"])
def test_what_is_no_model_is_not_found(name):
    with pytest.raises(BaechiError) as caught:
        models.get(name)
    assert caught.value.code == "B101"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gnmt", {"lenght": 20}),
        ("gnmt", {"length": 0}),
        ("gnmt", {"length": "20"}),
        ("gnmt", {"length": True}),
        ("gnmt", {"layers": 1}),
        ("transformer", {"dropout": 1.0}),
        ("transformer", {"width": 500, "heads": 8}),
        ("transformer", {"width": 9, "heads": 3}),
        ("inception_v3", {"image": 298}),
        ("inception_v3", {"image": 74, "aux": False}),
        ("inception_v3", {"aux": 1}),
    ],
)
def test_a_bad_option_is_refused(name, options):
    with pytest.raises(BaechiError) as caught:
        models.get(name, **options)
    assert caught.value.code == "B102"
    assert caught.value.help


def test_an_unknown_option_names_the_closest():
    with pytest.raises(BaechiError, match="no option 'lenght'") as caught:
        models.get("gnmt", lenght=20)
    assert "'length'" in caught.value.help


def test_layer_index_reads_whole_path_elements():
    assert layer_index("encoder.layers.12.norm", "encoder.layers") == 12
    assert layer_index("encoder.layers", "encoder.layers") is None
    assert layer_index("encoder.layers2.1", "encoder.layers") is None
    assert layer_index("encoder.layers.norm", "encoder.layers") is None


def test_at_least_names_the_value():
    at_least(1, n=1)
    with pytest.raises(BaechiError, match="n is 0"):
        at_least(1, n=0)


def test_listing_models_and_graphs_imports_no_framework():
    code = "import sys; from baechi import models; from baechi.models import graphs; models.names(); graphs.chain(2)"
    check = "; sys.exit(any(m in sys.modules for m in ('torch', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code + check], check=False).returncode == 0
