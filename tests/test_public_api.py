"""The names of `mpqdm_core`: listed, sorted, there, and lazy."""

import subprocess
import sys

import pytest

import mpqdm_core


def test_the_list_is_sorted_and_complete():
    assert list(mpqdm_core.__all__) == sorted(mpqdm_core.__all__)
    assert set(mpqdm_core.__all__) == set(mpqdm_core._HOME)


@pytest.mark.parametrize("name", mpqdm_core.__all__)
def test_every_name_comes_from_the_module_that_defines_it(name):
    assert getattr(mpqdm_core, name).__module__.startswith(mpqdm_core._HOME[name])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        mpqdm_core.quantise  # noqa: B018 - the access is the test


def test_importing_the_package_and_allocating_needs_no_torch():
    code = "import mpqdm_core, sys; mpqdm_core.allocate; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
