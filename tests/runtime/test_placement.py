import pytest

from stages.common.errors import InputError
from stages.core.decoding import Job, decode
from stages.core.sampling import Decoding
from stages.runtime.model import load_model
from stages.runtime.placement import n_weights, placement
from tests.tiny import DECODING, make_base

GIB = 2**30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("n_bytes", "free", "told"),
    [
        pytest.param(5, [], {}, id="no GPU"),
        pytest.param(70, [90, 100], {"device_map": {"": 1}}, id="just fits on one, the emptiest"),
        pytest.param(71, [90, 100], {"device_map": "auto", "max_memory": {0: 62, 1: 70}}, id="over both"),
    ],
)
def test_where_the_weights_go(n_bytes, free, told):
    assert placement(n_bytes, free, name="m") == told


def test_gpus_that_are_too_small_are_one_sentence():
    with pytest.raises(InputError, match=r"models/x: its weights take 130\.0 GiB and 70% .* is 112\.0 GiB; set prec"):
        placement(130 * GIB, [80 * GIB, 80 * GIB], name="models/x")


def test_weights_are_counted(folder):
    assert n_weights(folder) == sum(p.numel() for p in load_model(folder).parameters())


def test_a_model_in_several_places_answers_as_in_one(folder, tmp_path):
    """Layer by layer over the CPU and the disk, by the same hooks as over GPUs."""
    apart = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    where = {"device_map": {**apart, "model.rotary_emb": "cpu", "lm_head": "cpu"}, "offload_folder": str(tmp_path)}
    jobs = [Job([1, *range(5, 5 + n)], n) for n in range(7)]
    answers = [
        sorted(decode(model, jobs, decoding=Decoding(**DECODING), stop_ids=frozenset({2}), context_tokens=128))
        for model in (load_model(folder), load_model(folder, where=where))
    ]
    assert answers[0] == answers[1]
