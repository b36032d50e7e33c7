"""The benchmark against other libraries: how it counts, and that files of those installed read back."""

import copy

import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks._peers_kept import KeptRows
from benchmarks._peers_methods import PEERS, Peer
from benchmarks._peers_table import Row, markdown

WEIGHTS = {"0": 64 * 64, "1": 32 * 64}


class Counted(Peer):
    """Ten scales and four whole zero-points in the first layer, the second left out."""

    def tables(self, layer):
        return [torch.ones(10), torch.ones(4).to(torch.int8)] if layer.out_features == 64 else None


def test_effective_bits_count_tables_and_layers_that_were_left_out():
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32))
    bits, covered = Counted().effective_bits(network, WEIGHTS, 2)
    assert bits == pytest.approx((2 * 4096 + 16 * 10 + 2 * 4 + 16 * 2048) / 6144)
    assert covered == pytest.approx(2 / 3)


def test_kept_rows_come_back_for_the_same_model_and_versions_only(tmp_path):
    path, pair = tmp_path / "rows.json", [row("a", 2, 20.0, 3.0), row("ours at a's bits", 2, 21.0, 2.0)]
    KeptRows(path, {"model": "x", "widths": (2, 3)}).put("a", 2, pair)
    again = KeptRows(path, {"model": "x", "widths": (2, 3)})
    assert again.get("a", 2) == pair and again.get("a", 3) is None
    assert KeptRows(path, {"model": "y", "widths": (2, 3)}).get("a", 2) is None


def row(method, bits, psnr, fid):
    return Row(
        method=method,
        bits=bits,
        effective_bits=bits + 0.5,
        covered=1.0,
        psnr_db=psnr,
        fid=fid,
        accuracy=0.9,
        file_kib=1.0,
        load_s=0.1,
        sample_s=0.1,
    )


def test_the_lead_is_the_smallest_over_all_peers():
    rows = [
        row("a", 2, 10, 8),
        row("ours at a's bits", 2, 15, 4),
        row("b", 2, 14, 6),
        row("ours at b's bits", 2, 15, 3),
    ]
    figures = peers.figures_of(rows, quick=False)
    assert figures["lead_db_2_bits"].value == 1 and figures["lead_db_2_bits"].met
    assert figures["fid_ratio_2_bits"].value == 0.5 and figures["peers_2_bits"].value == 2
    assert peers.figures_of(rows, quick=True)["lead_db_2_bits"].met is None


def test_the_table_has_a_line_for_each_peer_with_ours_behind_it():
    rows = [row("a", 2, 10.04, 8), row("ours at a's bits", 2, 12.0, 6), row("b", 2, 9.0, 9)]
    assert markdown(rows).splitlines()[2:] == [
        "| 2 | a | 2.50 / 2.50 | 10.0 / 12.0 | 8 / 6 | 0.900 / 0.900 | 1 / 1 | 0.10 / 0.10 | 0.100 / 0.100 |"
    ]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_that_is_installed_takes_every_layer_it_is_given(peer):
    pytest.importorskip(peer.module)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32))
    wanted = peer.quantize(copy.deepcopy(network), list(WEIGHTS), 4)
    bits, covered = peer.effective_bits(wanted, WEIGHTS, 4)
    assert covered == 1 and 4 < bits < 6
