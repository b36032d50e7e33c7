"""Three numbers of bits on the Ablation tab, and runs that were kept before files were packed."""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "board"))
from board_runs import make

from mpqdm_core.board.run import Metric
from mpqdm_core.board.tables import number_words
from pages import _ablation_show as showing


def packed_run():
    run = make(2)[0]
    on_disk = {"on_disk_bits": Metric(value=4.5), "file_bytes": Metric(value=123456.0)}
    return make(2, metrics={**run.metrics, "nominal_bits": Metric(value=4.0), **on_disk})[0]


def test_the_table_has_all_three_and_an_empty_cell_for_older_runs():
    old, packed = make(1)[0], packed_run()
    shown = json.loads(showing.board([old, packed], [], packed.id))
    names = [info["name"] for info in shown["metrics"]]
    assert names == ["psnr_db", "nominal_bits", "effective_bits", "on_disk_bits", "file_bytes", "size_mib"]
    entries = {entry["id"]: entry for entry in shown["runs"]}
    assert entries[packed.id]["metrics"]["on_disk_bits"] == [4.5, None, None]
    assert (
        "on_disk_bits" not in entries[old.id]["metrics"] and "on_disk_bits" not in entries[old.id]["change"]
    )


def test_a_chart_of_a_number_that_no_run_has_says_which():
    old, packed = make(1)[0], packed_run()
    figure = json.loads(showing.scatter([old, packed], "on_disk_bits", "psnr_db", None))
    assert [trace["customdata"] for trace in figure["data"][1:]] == [[packed.id]]
    assert json.loads(showing.scatter([old], "on_disk_bits", "psnr_db", None)) == {"lacking": "On-disk bits"}
    assert showing.scatter([], "on_disk_bits", "psnr_db", None) == ""


def test_bytes_keep_every_figure_in_a_written_table():
    assert number_words(Metric(value=123456.0)) == "123,456"
    assert number_words(Metric(value=4.0)) == "4" and number_words(Metric(value=0.123456)) == "0.1235"
