import csv
import io
import json
import re

import pytest
from board_runs import make, plan

from mpqdm_core.board.catalog import metrics_of, settings_of
from mpqdm_core.board.differences import difference, pareto_front, plan_difference
from mpqdm_core.board.page import to_page
from mpqdm_core.board.run import KeptRun
from mpqdm_core.board.script import to_script
from mpqdm_core.board.store import RunStore
from mpqdm_core.board.tables import latex, to_csv, to_json, to_latex
from mpqdm_core.errors import DataError

NASTY = "=cmd|' /C calc'!A0 & 50% <script>alert(1)</script>"


@pytest.fixture
def runs():
    failed = make(3, state="failed", error="not <enough> memory", metrics={}, pictures=None, plan=None)[0]
    return [make(1, psnr=(20.0, 22.0), bits=2.0)[0], make(2, psnr=(21.0, 25.0), bits=4.0)[0], failed]


def test_settings_that_differ(runs):
    assert settings_of(runs, differing=True) == ("average_bits",)
    assert settings_of(runs) == ("policy", "average_bits", "seed", "pictures", "model")
    assert [info.name for info in metrics_of(runs)] == ["psnr_db", "effective_bits", "size_mib"]


def test_pictures_from_the_same_noise_are_compared_in_pairs(runs):
    found = difference(runs[1], runs[0], "psnr_db")
    assert found.value == pytest.approx(((21 - 20) + (25 - 22)) / 2)
    assert 1.0 <= found.low <= found.value <= found.high <= 3.0 and found.n == 2
    other_seed = make(4, settings={**runs[0].settings, "seed": 1})[0]
    unpaired = difference(other_seed, runs[0], "psnr_db")
    assert unpaired.value == pytest.approx(0.0) and unpaired.low is None
    assert difference(runs[2], runs[0], "psnr_db") is None
    assert difference(runs[1], runs[0], "size_mib").low is None


def test_the_front_leaves_out_what_is_beaten():
    points = [(2.0, 10.0), (3.0, 9.0), (3.0, 12.0), (4.0, 12.0), (5.0, 20.0), (1.0, 1.0)]
    assert pareto_front(points, higher_is_better=True) == (5, 0, 2, 4)
    errors = [(cost, -quality) for cost, quality in points]
    assert pareto_front(errors, higher_is_better=False) == (5, 0, 2, 4)
    assert pareto_front([], higher_is_better=True) == ()


def test_two_plans_layer_by_layer():
    first, second = plan_difference(plan(4, 4, 3, 5), plan(4, 5, 2, 5))
    assert (first.layer, first.first, first.second, first.more, first.fewer) == ("down.conv", 4.0, 4.5, 1, 0)
    assert (second.first, second.second, second.more, second.fewer, second.channels) == (4.0, 3.5, 0, 1, 2)
    with pytest.raises(DataError, match="different networks"):
        plan_difference(plan(4, 4), plan(4, 4, 4, 4))


def test_csv_has_every_number_and_no_formula(runs):
    rows = list(csv.DictReader(io.StringIO(to_csv([runs[0], make(5, title=NASTY)[0], runs[2]]))))
    assert float(rows[0]["psnr_db"]) == 21.0 and float(rows[0]["psnr_db_low"]) == 20.0
    assert rows[0]["psnr_db_n"] == "2" and rows[0]["average_bits"] == "2.0"
    assert rows[1]["title"] == "'" + NASTY
    assert rows[2]["error"] == "not <enough> memory" and rows[2]["psnr_db"] == ""


def test_json_can_be_read_back(runs):
    assert [KeptRun.from_dict(document) for document in json.loads(to_json(runs))] == runs


def test_latex_is_a_table_with_everything_escaped(runs):
    text = to_latex([*runs, make(6, settings={"policy": "a_b & 50%", "average_bits": 3.0})[0]])
    body = re.search(r"\\midrule\n(.*)\n\\bottomrule", text, re.DOTALL).group(1).splitlines()
    assert len(body) == 3 and all(line.endswith(r" \\") for line in body)
    columns = len(re.search(r"\{tabular\}\{([lr]+)\}", text).group(1))
    assert all(len(re.split(r"(?<!\\)&", line)) == columns for line in body)
    assert r"a\_b \& 50\%" in body[2]
    assert r"$21$ {\scriptsize$[20, 22]$}" in body[0]
    assert latex("\\{}^~$#") == r"\textbackslash{}\{\}\textasciicircum{}\textasciitilde{}\$\#"


def test_the_page_stands_alone_and_runs_no_text(tmp_path):
    store = RunStore(tmp_path)
    kept = [store.add(*make(1, bits=2.0, title=NASTY)), store.add(*make(2, bits=4.0))]
    failed = make(
        3, state="failed", error="<img src=x onerror=alert(1)>", metrics={}, pictures=None, plan=None
    )
    text = to_page([*kept, store.add(failed[0])], store.blobs.get, title="Bits & <pieces>")
    assert "<script" not in text and "onerror=alert(1)>" not in text.replace("&lt;", "")
    assert "&lt;img src=x" in text and "Bits &amp; &lt;pieces&gt;" in text
    assert not re.search(r"""(src|href)=["'](?!data:image/png;base64,)""", text)
    assert text.count("<img ") == 3  # two runs and one reference
    assert "21 [20, 22]" in text and "2 runs, 1 failed" in text and "<polyline" in text


def test_a_strangers_run_writes_no_program(tmp_path):
    evil = '"""\nimport os; os.remove("x")\n"""'
    run = make(title=evil, device=evil, versions={"torch": evil}, settings={"model": evil, "policy": "x"})[0]
    import ast

    tree = ast.parse(to_script(run))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == set()
    with pytest.raises(DataError, match="only finished cells"):
        to_script(make(state="failed")[0])
