"""The command line on a tiny model: every command, in the order of a day's work."""

import json
import signal

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mpqdm_core.adapter import Adapter
from mpqdm_core.allocation import BitPlan
from mpqdm_core.command_line import _console, main
from mpqdm_core.loading import load_denoiser
from tests.core.tiny_models import tiny_pipeline


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a model, its calibration and a plan, all made by commands."""
    folder = tmp_path_factory.mktemp("command-line")
    pipeline = tiny_pipeline("class-conditional-ldm")
    pipeline.save_pretrained(folder / "model")
    index = json.loads((folder / "model/model_index.json").read_text())
    (folder / "model/model_index.json").write_text(json.dumps({**index, "guidance_scale": 2.0}))
    model, calibration = str(folder / "model"), str(folder / "calibration")
    assert main(["calibrate", model, "--out", calibration, "--samples", "2", "--quiet"]) == 0
    plan = ["allocate", model, "--calibration", calibration, "--bits", "3"]
    assert main([*plan, "--out", str(folder / "plan.json"), "--quiet"]) == 0
    return folder


@pytest.fixture
def call(work, capsys):
    """Run a command on the model of `work`; returns exit code, JSON, and what went to the error stream."""

    def run(command, *arguments, planned=False, model="model"):
        named = ["--calibration", str(work / "calibration"), "--plan", str(work / "plan.json")]
        more = named if planned else []
        code = main([command, str(work / model), *more, *map(str, arguments), "--json", "--quiet"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out.splitlines()[-1]) if printed.out else None, printed.err

    return run


def test_models_lists_the_bundled_folders(capsys):
    assert main(["models", "--json"]) == 0
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)["models"]}
    assert "sprites-ldm" in names


@pytest.mark.parametrize("files", [(), ("--files",)])
def test_analyze_says_the_kurtosis_that_scipy_finds(call, work, files):
    model = f"model{'/unet' if files else ''}"
    code, found, _ = call("analyze", *files, model=model)
    assert code == 0
    network = load_denoiser(work / "model").network
    for layer in found["layers"]:
        weight = network.get_submodule(layer["name"]).weight.detach().double().flatten(1).numpy()
        wanted = stats.kurtosis(weight, axis=1, fisher=False)
        np.testing.assert_allclose(layer["kurtosis"], wanted, rtol=1e-4)


def test_the_plan_keeps_to_the_budget(work):
    plan = BitPlan.load(work / "plan.json")
    assert 2.5 < plan.mean_bits <= 3.0


def test_a_table_of_other_settings_is_refused(call, work):
    arguments = ["--calibration", work / "calibration", "--bits", "4", "--out", work / "other.json"]
    arguments += ["--table", work / "table.npz"]
    assert call("allocate", *arguments)[0] == 0
    code, _, said = call("allocate", *arguments, "--grid", "affine")
    assert code == 1
    assert said.startswith("Error: ") and "was measured with other settings" in said


def test_sampling_goes_on_and_does_not_mix(call, tmp_path):
    arguments = ["--count", "3", "--seed", "5", "--out", tmp_path / "pictures"]
    assert call("sample", *arguments, planned=True)[1]["drawn"] == 3
    lost = tmp_path / "pictures/00000006.png"
    before = lost.read_bytes()
    lost.unlink()
    assert call("sample", *arguments, planned=True)[1]["drawn"] == 1
    assert lost.read_bytes() == before
    code, _, said = call("sample", *arguments)
    assert code == 1 and "holds other pictures" in said


def test_a_packed_model_draws_the_same_pictures(call, work, tmp_path):
    code, account, _ = call("export", "--out", work / "packed", "--scale-dtype", "float32", planned=True)
    assert code == 0
    assert sum(account["items"].values()) == account["file_bytes"]
    assert call("inspect", model="packed")[1]["hash"] == account["hash"]
    common = ["--count", "2", "--out"]
    assert call("sample", *common, tmp_path / "a", planned=True)[0] == 0
    assert call("sample", "--packed", *common, tmp_path / "b", model="packed")[0] == 0
    for name in ("00000000.png", "00000001.png"):
        one, other = (np.asarray(Image.open(tmp_path / folder / name)) for folder in "ab")
        np.testing.assert_array_equal(one, other)


def test_compare_gives_an_interval_around_each_mean(call):
    code, found, _ = call("compare", "--count", "4", planned=True)
    assert code == 0
    psnr = found["image_psnr_db"]
    assert psnr["low"] <= psnr["mean"] <= psnr["high"]


def test_ctrl_c_leaves_an_adapter_and_the_next_call_ends_where_one_call_would_have(
    call, work, tmp_path, monkeypatch
):
    arguments = ["--steps", "6", "--batch-size", "2", "--pictures", "2", "--out"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert call("finetune", *arguments, whole, planned=True)[0] == 0

    class Impatient(_console.tqdm):
        def update(self, n=1):
            super().update(n)
            if self.total == 6 and self.n == 3:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_console, "tqdm", Impatient)
    command = ["finetune", str(work / "model"), "--calibration", str(work / "calibration")]
    command += ["--plan", str(work / "plan.json"), *arguments, str(parted)]
    assert main(command) == 130
    assert Adapter.load(parted).steps == 3
    monkeypatch.undo()
    code, found, _ = call("finetune", *arguments, parted, planned=True)
    assert code == 0 and found["finished"]
    one, other = Adapter.load(whole), Adapter.load(parted)
    for name, tensor in one.tensors.items():
        np.testing.assert_allclose(other.tensors[name].numpy(), tensor.numpy(), rtol=1e-5, atol=1e-7)


def test_what_cannot_be_done_is_one_sentence(call, work, capsys):
    code, _, said = call("analyze", model="nowhere")
    assert code == 1 and said.count("\n") == 1 and "nowhere" in said
    code, _, said = call("compare")
    assert code == 1 and said == "Error: there is nothing to compare: give --plan or --adapter\n"
    with pytest.raises(SystemExit) as wrong:
        main(["allocate", "model"])
    assert wrong.value.code == 2
    assert "--calibration" in capsys.readouterr().err
