"""Figures in the documents are those of the results files."""

import pytest

from benchmarks import _ablations_table, _cell_files, _headline_table, _readme, headline


@pytest.mark.parametrize("path", _readme.documents(), ids=lambda path: path.parent.name)
def test_the_figures_are_those_of_the_results_files(path):
    text = path.read_text(encoding="utf-8")
    assert text == _readme.fill(text, _readme.documents()[path]), "run python -m benchmarks._readme"


def test_a_card_shows_the_figures_of_its_own_model_alone():
    figures = {
        "fid_sprites_ldm": {"value": 8.0, "unit": "FID"},
        "fid_sprites_dit": {"value": 9.0, "unit": "FID"},
    }
    found = _readme.of_model({"zoo_quality": {"figures": figures, "device": "2 cores"}}, "sprites-dit")
    assert found["zoo_quality"]["figures"] == {"fid_sprites_dit": {"value": 9.0, "unit": "FID"}}


def test_a_missed_bar_is_shown_as_missed():
    entry = {"value": 1.5, "unit": "ratio", "bar": 1.3, "met": False}
    rendered = _readme.table({"sampling": {"figures": {"ratio": entry}, "device": "2 cores"}})
    assert "| `sampling.ratio` | 1.5 ratio | 1.3 | **no** |" in rendered
    assert rendered.endswith("Measured on: 2 cores.")


def cell(recipe, seed, fid, setting="W2A4"):
    figures = dict.fromkeys(_headline_table.SHOWN, 1.0)
    return {
        "setting": setting,
        "recipe": recipe,
        "seed": seed,
        **figures,
        "fid_real": fid,
        "fid_real_teacher": 8.0,
    }


def test_the_headline_s_table_has_the_mean_over_seeds_and_their_range(tmp_path):
    path = tmp_path / "cells.csv"
    _cell_files.write_cells([cell("ours", 0, 10.0), cell("ours", 1, 30.0), cell("naive", 0, 50.0)], path)
    ours, naive = _headline_table.markdown(path).splitlines()[2:4]
    assert ours.startswith("| W2A4 | ours | 2 | 20.0 (10.0 to 30.0) | 1.0 |")
    assert naive.startswith("| W2A4 | rounding only | 1 | 50.0 |")


def test_the_ablations_table_has_a_line_a_variant_and_a_column_a_setting(tmp_path):
    path = tmp_path / "cells.csv"
    cells = [cell("mpqdm-corrected", 0, 40.0), cell("no-trd", 0, 50.0), cell("no-trd", 0, 12.5, "W3A4")]
    _cell_files.write_cells(cells, path)
    head, _, base, without = _ablations_table.markdown(path).splitlines()
    assert head == "| one thing changed | W2A4: FID, to teacher, PSNR | W3A4: FID, to teacher, PSNR |"
    assert base == "| nothing: MPQ-DM corrected | 40.0, 1.0, 1.00 | - |"
    assert without == "| task loss only | 50.0, 1.0, 1.00 | 12.5, 1.0, 1.00 |"


def test_the_reduction_is_the_smallest_of_the_seeds_and_needs_all_three():
    measured = []
    for seed, baseline, own in [(0, 100.0, 20.0), (1, 80.0, 30.0), (2, 50.0, 10.0)]:
        measured += [cell("efficientdm", seed, baseline), cell("ours", seed, own)]
    found = headline.figures_of(measured, 60)["w2a4_fid_reduction"]
    assert found.value == pytest.approx(1 - 30 / 80) and found.met
    assert not headline.figures_of(measured[:4], 60)["w2a4_fid_reduction"].met


def corrected_beside_baseline(pairs):
    measured = []
    for setting in ("W2A4", "W2A6", "W3A4", "W3A6"):
        for seed, (baseline, own) in enumerate(pairs):
            measured += [
                cell("efficientdm", seed, baseline, setting),
                cell("mpqdm-corrected", seed, own, setting),
            ]
    return measured


def test_corrected_is_held_against_the_baseline_by_seed_and_by_setting():
    measured = corrected_beside_baseline([(40.0, 30.0), (20.0, 22.0), (50.0, 50.0)])
    found = headline.figures_of(measured, 60)
    worst, setting = (found[f"corrected_fid_reduction_{name}"] for name in ("worst", "worst_setting"))
    assert worst.value == pytest.approx(-0.1) and worst.met is False
    assert setting.value == pytest.approx((0.25 - 0.1 + 0.0) / 3) and setting.met is True


def test_what_was_not_measured_with_every_seed_and_setting_is_not_met():
    measured = corrected_beside_baseline([(40.0, 30.0), (20.0, 10.0), (50.0, 40.0)])
    for missing in (measured[:-2], measured[:-6]):
        found = headline.figures_of(missing, 60)
        assert not found["corrected_fid_reduction_worst"].met
        assert not found["corrected_fid_reduction_worst_setting"].met
