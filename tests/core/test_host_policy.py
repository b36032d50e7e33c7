"""What a server lets its visitors open, by its environment."""

import pytest

from mpqdm_core.errors import LoadError, SettingsError
from mpqdm_core.host_policy import SPACE_MAX_BYTES, SPACE_MODELS, host_policy
from mpqdm_core.memory import available_memory, gigabytes, memory_need, total_memory

SPACE = {"SPACE_ID": "someone/explorer"}


def test_outside_a_space_everything_is_allowed():
    policy = host_policy({})
    policy.check_path()
    policy.check_repo("any/thing")
    policy.check_size("any/thing", 10**15)


def test_a_space_opens_no_paths_and_fetches_from_a_list_up_to_a_size():
    policy = host_policy(SPACE)
    with pytest.raises(SettingsError, match="opens no folders of its own disk"):
        policy.check_path()
    policy.check_repo(SPACE_MODELS[0])
    with pytest.raises(SettingsError, match="any/thing is not on this server's list"):
        policy.check_repo("any/thing")
    policy.check_size("a/b", SPACE_MAX_BYTES)
    with pytest.raises(
        SettingsError, match=r"a/b would fetch 7\.0 GB, and this server fetches at most 6\.0 GB"
    ):
        policy.check_size("a/b", 7 * 10**9)


@pytest.mark.parametrize("base", [{}, SPACE])
def test_list_and_size_can_be_set_anywhere(base):
    policy = host_policy({**base, "MPQDM_HUB_MODELS": " me/*, you/model ,", "MPQDM_MAX_DOWNLOAD_GB": "0.5"})
    assert policy.models == ("me/*", "you/model") and policy.max_bytes == 5 * 10**8
    policy.check_repo("me/anything")
    with pytest.raises(SettingsError, match=r"\(me/\*, you/model\)"):
        policy.check_repo("you/other")


def test_a_space_can_be_opened_wide_or_shut():
    wide = host_policy({**SPACE, "MPQDM_HUB_MODELS": "*", "MPQDM_MAX_DOWNLOAD_GB": "none"})
    wide.check_repo("any/thing")
    wide.check_size("any/thing", 10**15)
    with pytest.raises(SettingsError, match=r"list of models \(none\)"):
        host_policy({**SPACE, "MPQDM_HUB_MODELS": ""}).check_repo("a/b")


@pytest.mark.parametrize("value", ["big", "0", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", ["MPQDM_MAX_DOWNLOAD_GB", "MPQDM_MODEL_CACHE_GB"])
def test_what_is_no_size_is_told(name, value):
    with pytest.raises(SettingsError, match=f"{name} must be a number of GB above 0, got '{value}'"):
        host_policy({name: value})


def test_the_cache_can_be_set_and_is_a_part_of_memory_otherwise():
    assert host_policy({"MPQDM_MODEL_CACHE_GB": "3"}).cache_bytes == 3 * 10**9
    assert 10**9 <= host_policy({}).cache_bytes <= max(10**9, total_memory() // 2)


def test_memory_is_counted_in_float32_with_the_largest_file_beside_it():
    need = memory_need(10**9, 2 * 10**9, available=6 * 10**9)
    assert need.needed == 4 * 10**9 + 2 * 10**9 + 5 * 10**8 and not need.fits
    with pytest.raises(LoadError, match=r"m needs about 6\.5 GB of memory and 6\.0 GB are free"):
        need.check("m")
    memory_need(1, 1, available=6 * 10**9).check("m")
    assert 0 < available_memory() <= total_memory()


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0.1 MB"), (2_500_000, "2.5 MB"), (25_000_000, "25 MB"), (3_400_000_000, "3.4 GB")],
)
def test_sizes_read_well(nbytes, text):
    assert gigabytes(nbytes) == text
