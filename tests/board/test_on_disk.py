"""What a cell says of its packed file is what lies on the disk."""

import pytest
from board_lab import EFFORT, layer_shapes, small_laboratory
from safetensors.torch import load_file

from mpqdm_core.allocation.plan import BitPlan
from mpqdm_core.board.keep import compared_run
from mpqdm_core.board.measured import weighed
from mpqdm_core.board.sweep import SweepSettings
from mpqdm_core.comparison import compare
from mpqdm_core.errors import Cancelled
from mpqdm_core.packing import export_packed, measure_packed
from mpqdm_core.quantization import QuantSettings, quantize
from mpqdm_core.sampling import sample


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return small_laboratory(tmp_path_factory.mktemp("tiny"))


def student(lab, bits, settings, **rest):
    plan = BitPlan.uniform(*layer_shapes(lab.denoiser), bits)
    return quantize(lab.denoiser, lab.calibration(), plan, settings, **rest)


def test_bits_and_bytes_of_a_cell_are_those_of_its_file(lab, tmp_path):
    (cell,) = SweepSettings(policies=("uniform",), average_bits=(2.0,), effort=EFFORT).cells()
    run = lab.compute(cell).run
    again = student(lab, 2, QuantSettings(activation_bits=cell.activation_bits, grid=cell.grid))
    exported = export_packed(again, tmp_path / "model")
    path = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    layers, tensors = lab.denoiser.quantizable_layers, load_file(path)
    stored = path.stat().st_size - sum(tensor.nbytes for tensor in tensors.values())  # header and manifest
    stored += sum(
        tensors[f"{layer.name}.{part}"].nbytes for layer in layers for part in ("weight_packed", "scales")
    )
    weights = sum(layer.out_channels * layer.weights_per_channel for layer in layers)
    assert run.metrics["file_bytes"].value == path.stat().st_size == exported.file_bytes
    assert run.metrics["on_disk_bits"].value == pytest.approx(8 * stored / weights)
    assert run.metrics["nominal_bits"].value == 2.0 < run.metrics["effective_bits"].value
    assert run.metrics["effective_bits"].value < run.metrics["on_disk_bits"].value
    assert run.seconds["pack"] > 0


def test_a_model_that_cannot_be_packed_says_nothing_of_its_file(lab):
    large = student(lab, 4, QuantSettings(), freeze=False)
    next(iter(large.layers.values())).weight_scale.data[:] = 1e6  # above what half precision can hold
    assert weighed(large) == {}


def test_packing_can_be_stopped(lab):
    def stop(*_progress):
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        weighed(student(lab, 4, QuantSettings()), stop)


def test_what_was_compared_is_kept_with_the_file_of_its_model(lab):
    model = student(lab, 3, QuantSettings())
    full, drawn = (sample(d, labels=[0, 1], seeds=[1, 2]) for d in (lab.denoiser, model.denoiser))
    packed = measure_packed(model)
    run = compared_run(
        kind="comparison", title="by hand", comparison=compare(full, drawn), pictures=drawn.images,
        reference=full.images, names=["cat", "house"], settings={}, hashes={}, plan=model.plan, packed=packed,
    ).run  # fmt: skip
    sizes = {name: run.metrics[name].value for name in ("nominal_bits", "effective_bits", "on_disk_bits")}
    assert sizes == {
        "nominal_bits": 3.0,
        "effective_bits": model.bit_report.effective_bits,
        "on_disk_bits": packed.bits_on_disk,
    }
    assert run.metrics["file_bytes"].value == packed.file_bytes
