"""The Export page as plain functions; the files themselves are tested in tests/core."""

import json
from types import SimpleNamespace

import gradio as gr
import pytest

from mpqdm_core.errors import DataError
from pages import _export_view, _export_work, _packed_store, export
from pages._distill_adapters import ADAPTERS, Offered, student_of
from pages._export_figure import bits_figure
from pages._packed_store import STORE, Shown
from pages._packed_weights import PackedWeights
from pages._precomputed import DEFAULT_MODEL
from pages._session import workspace


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    STORE.clear()
    ADAPTERS.clear()
    monkeypatch.setattr(_packed_store, "_root", lambda: tmp_path)
    yield
    STORE.clear()
    ADAPTERS.clear()


def shown(key="one", **changes):
    """800 weights at 2 bits: 200 bytes of codes, 50 of scales, 100 of header, 50 of others."""
    item = lambda name, size, inside=False: SimpleNamespace(name=name, bytes=size, of_quantized_layers=inside)  # noqa: E731
    bit_item = SimpleNamespace(name="quantized weights", bits=1600, of_quantized_layers=True)
    manifest = SimpleNamespace(
        name="toy <b>",
        family="ddpm",
        num_classes=10,
        licence="mit",
        recipe={"made": "rounding only"},
        tensors_sha256="0" * 64,
        plan=SimpleNamespace(mean_bits=2.0),
        settings=SimpleNamespace(activation_bits=8),
        bit_report=SimpleNamespace(nominal_bits=2.0, effective_bits=2.5, items=(bit_item,)),
        as_dict=lambda: {"layers": [1, 2], "bit_report": 1, "version": 1},
    )
    layer = SimpleNamespace(
        name="conv", bits={1: 1, 3: 3}, activation_bits=None, bytes=250, bytes_full_precision=3200
    )
    packed = SimpleNamespace(
        manifest=manifest,
        items=(
            item("quantized weights", 200, True),
            item("weight scales", 50, True),
            item("biases, norms, embeddings", 50),
            item("header and manifest", 100),
        ),
        layers=(layer,),
        weights=800,
        file_bytes=400,
        bits_per_weight=2.5,
        bits_on_disk=3.5,
        file=_packed_store._root() / key / "denoiser.safetensors",
    )
    place = _packed_store._root() / key
    place.mkdir(exist_ok=True)
    settings = {"key": key, "place": place, "name": "toy", "packed": packed, "archive": None, "mismatch": ""}
    return Shown(**(settings | changes))


def test_each_bar_is_divided_into_what_it_is_made_of_and_says_its_sum():
    figure = bits_figure([("nominal", {"quantized weights": 2.0}), ("on disk", {"weight scales": 0.25})])
    assert {trace["name"]: trace["x"] for trace in figure["data"]} == {
        "quantized weights": [2.0, 0.0],
        "weight scales": [0.0, 0.25],
    }
    assert [note["text"] for note in figure["layout"]["annotations"]] == ["2.000", "0.250"]


def test_the_chart_counts_the_header_on_the_disk_only():
    drawn = json.loads(_export_view.chart(shown()))
    assert [note["text"] for note in drawn["layout"]["annotations"]] == ["2.000", "2.000", "3.500"]


def test_cards_and_tables_say_bytes_and_bits():
    cards, account = _export_view.sizes(shown()), _export_view.account(shown())
    assert "<b>3.500</b>" in cards and "2.500 without header" in cards and "12.8 times smaller" in cards
    assert (
        account.count("<i style=") == 3 and "50.0%" in account and "2.000" in account and "100.0%" in account
    )
    layers = _export_view.layers(shown())
    assert "1 at 1, 3 at 3" in layers
    assert "2.50" in layers and "full precision" in layers


def test_words_of_a_file_are_text_and_not_markup():
    assert "toy &lt;b&gt;" in _export_view.heading(shown())


def test_a_file_of_another_model_says_so_and_cannot_be_compared():
    other = shown(mismatch="it was made elsewhere")
    STORE.put(other.key, other)
    assert "mpq-warning" in _export_view.heading(other) and "it was made elsewhere" in _export_view.heading(
        other
    )
    assert export.everything(other, "Read")[5].visible is False
    with pytest.raises(gr.Error, match="not kept any more"):
        export.on_compare(other.key, DEFAULT_MODEL, [])


def test_going_to_compare_chooses_the_file_beside_what_is_chosen():
    mine = workspace(DEFAULT_MODEL).key
    ADAPTERS.put("run", Offered(key="run", title="a run", work_key=mine, changed={}, adapter=None))
    STORE.put("one", shown())
    tabs, picker = export.on_compare("one", DEFAULT_MODEL, ["run"])
    assert tabs.selected == "compare"
    assert picker.value == ["run", "one"] and ("packed, 2.00 bits", "one") in picker.choices


def test_a_packed_file_stands_where_an_adapter_does(monkeypatch):
    from pages import _distill_adapters

    monkeypatch.setattr(_distill_adapters, "ensure_denoiser", lambda work, report: "the model")
    monkeypatch.setattr(PackedWeights, "student", lambda self, denoiser: (self.content_hash, denoiser))
    offered = _packed_store.offer(shown(), workspace(DEFAULT_MODEL))
    assert student_of(offered, lambda *_: None) == ("0" * 64, "the model")


def test_only_what_is_kept_stays_on_the_disk():
    STORE.put("one", shown("one"))
    shown("gone")
    place = _packed_store.new_place()
    assert sorted(path.name for path in place.parent.iterdir()) == sorted(["one", place.name])


def test_without_a_plan_or_with_a_forgotten_model_it_is_a_sentence():
    with pytest.raises(DataError, match="choose one on Bit budget"):
        _export_work.read_order(None, _export_work.PLAN, "float16")
    with pytest.raises(DataError, match="not kept any more"):
        _export_work.read_order(None, "forgotten", "float16")


def test_the_list_offers_the_plan_and_fine_tuned_models_but_no_packed_files():
    mine = workspace(DEFAULT_MODEL).key
    tuned = SimpleNamespace(losses={})
    ADAPTERS.put("run", Offered(key="run", title="a run", work_key=mine, changed={}, adapter=tuned))
    _packed_store.offer(shown(), workspace(DEFAULT_MODEL))
    offered = export.on_open(DEFAULT_MODEL, None, "run")
    assert [key for _, key in offered.choices] == ["plan", "run"] and offered.value == "run"
    assert export.on_open(DEFAULT_MODEL, None, "gone").value == "plan"


def test_the_code_names_the_folder_the_class_and_the_part():
    code = _export_view.loading_code(shown(network="UNet2DModel", part="unet"))
    assert 'UNet2DModel.from_pretrained("toy", subfolder="unet")' in code
    assert len(code.strip().splitlines()) == 5
    compile(code, "shown", "exec")
    uploaded = _export_view.loading_code(shown(name="toy.zip"))
    assert 'load_packed("toy")' in uploaded and "labels=[0, 1]" in uploaded
    compile(uploaded, "shown", "exec")


def test_the_manifest_leaves_out_what_the_tables_show():
    assert json.loads(_export_view.manifest_text(shown())) == {
        "layers": "2 layers, listed on this page",
        "version": 1,
    }
