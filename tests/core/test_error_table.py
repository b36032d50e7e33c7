import numpy as np
import pytest

from mpqdm_core.error_table import ErrorTable
from mpqdm_core.errors import DataError, LoadError, ShapeError


def table(**more):
    values = {
        "layer_names": ("a", "b"),
        "layer_start": [0, 2, 5],
        "weights_per_channel": [9, 4],
        "error": np.arange(40.0).reshape(5, 8),
        "energy": np.arange(5.0),
        "kurtosis": np.arange(5.0) + 3,
        "sensitivity": np.ones(5),
        "settings": {"grid": "mid-rise", "activation_bits": 8, "exponent": 2.4, "alpha": None},
    }
    return ErrorTable(**(values | more))


def test_types_and_places():
    made = table()
    assert (made.error.dtype, made.layer_start.dtype, made.channels) == (np.float32, np.int64, 5)
    assert made.error[3, 2] == 26
    assert made.layer_slice("b") == slice(2, 5)
    with pytest.raises(DataError, match="no layer 'c'; it has 2 layers"):
        made.layer_slice("c")


def test_arrays_cannot_be_changed_and_the_callers_stay_writable():
    error = np.zeros((5, 8), dtype=np.float32, order="F")
    made = table(error=error)
    with pytest.raises(ValueError, match="read-only"):
        made.error[0, 0] = 1
    error[0, 0] = 1  # the caller's own array is not frozen


@pytest.mark.parametrize("sensitivity", [None, np.ones(5)])
def test_a_file_keeps_everything(tmp_path, sensitivity):
    made = table(sensitivity=sensitivity)
    made.save(tmp_path / "table.npz")
    again = ErrorTable.load(tmp_path / "table.npz")
    assert again.content_hash == made.content_hash
    assert again.settings == made.settings
    assert again.layer_names == ("a", "b")
    np.testing.assert_array_equal(again.error, made.error)
    assert (again.sensitivity is None) == (sensitivity is None)
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


def test_nan_survives(tmp_path):
    error = np.full((5, 8), np.nan)
    table(error=error).save(tmp_path / "table.npz")
    assert np.isnan(ErrorTable.load(tmp_path / "table.npz").error).all()


@pytest.mark.parametrize("field", ["error", "energy", "kurtosis", "sensitivity"])
def test_every_number_enters_the_hash(field):
    changed = np.array(getattr(table(), field))
    changed.flat[3] += 1
    assert table(**{field: changed}).content_hash != table().content_hash
    assert table(settings={}).content_hash != table().content_hash


def test_the_hash_does_not_depend_on_the_layout_in_memory():
    assert table(error=np.asfortranarray(table().error)).content_hash == table().content_hash


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"layer_names": ()}, DataError, "at least one layer"),
        ({"layer_names": ("a", "a")}, DataError, "must be unique"),
        ({"layer_start": [0, 5]}, ShapeError, r"layer_start must be \(3,\), got \(2,\)"),
        ({"layer_start": [0, 0, 5]}, DataError, "every layer must have a channel"),
        ({"weights_per_channel": [9]}, ShapeError, r"weights_per_channel must be \(2,\), got \(1,\)"),
        ({"weights_per_channel": [9, 0]}, DataError, "at least 1"),
        ({"error": np.zeros((5, 7))}, ShapeError, r"error must be \(5, 8\), got \(5, 7\)"),
        ({"error": -np.ones((5, 8))}, DataError, "cannot be negative"),
        ({"energy": np.zeros(4)}, ShapeError, r"energy must be \(5,\), got \(4,\)"),
        ({"sensitivity": np.zeros(4)}, ShapeError, r"sensitivity must be \(5,\), got \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, text):
    with pytest.raises(error, match=text):
        table(**change)


def test_damaged_files_are_one_sentence(tmp_path):
    path = tmp_path / "table.npz"
    with pytest.raises(LoadError, match="no error table at"):
        ErrorTable.load(path)
    path.write_bytes(b"not a zip file")
    with pytest.raises(LoadError, match=r"table\.npz is damaged"):
        ErrorTable.load(path)
    table().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match=r"table\.npz is damaged"):
        ErrorTable.load(path)
    broken = bytearray(whole)
    broken[len(whole) // 3] ^= 0xFF
    path.write_bytes(bytes(broken))
    with pytest.raises(LoadError, match=r"table\.npz is damaged"):
        ErrorTable.load(path)
    np.savez(path, something=np.ones(3))
    with pytest.raises(LoadError, match=r"table\.npz is damaged or is not an error table"):
        ErrorTable.load(path)
