"""Links: the round trip is exact, and no text whatsoever makes reading fail."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqdm_core import permalink
from mpqdm_core.permalink import PageState, decode, encode
from mpqdm_core.schedules import SCHEDULERS

LAYER_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}(\.[a-z0-9_]{1,6}){0,3}", fullmatch=True)
STATES = st.builds(
    PageState,
    tab=st.sampled_from(permalink.TABS),
    weight_bits=st.integers(20, 160).map(lambda twentieths: twentieths / 20),
    activation_bits=st.none() | st.integers(2, 8),
    policy=st.sampled_from(permalink.POLICIES),
    weighting=st.sampled_from(permalink.WEIGHTINGS),
    scope=st.sampled_from(permalink.SCOPES),
    allowed_bits=st.sets(st.integers(1, 8), min_size=1).map(lambda bits: tuple(sorted(bits))),
    locked=st.dictionaries(LAYER_NAMES, st.integers(1, 8), max_size=4),
    extra_groups=st.integers(0, permalink.MAX_EXTRA),
    grid=st.sampled_from(permalink.GRIDS),
    range_exponent=st.sampled_from([2.4, 2.0]),
    prescale=st.booleans(),
    exempt=st.dictionaries(LAYER_NAMES, st.sampled_from(["8-bit", "full precision", None]), max_size=4),
    side=st.sampled_from(permalink.SIDES),
    statistic=st.sampled_from(permalink.STATISTICS),
    step=st.integers(0, 99),
    seed=st.integers(0, permalink.MAX_SEED),
    classes=st.lists(st.integers(0, 9), max_size=4).map(tuple),
    sampler=st.sampled_from(["", *permalink.SAMPLERS]),
    prompts=st.lists(st.from_regex(r"[a-z&%=+#é猫]([a-z ]{0,9}[a-z])?", fullmatch=True), max_size=4).map(
        "\n".join
    ),
)


@given(STATES, LAYER_NAMES, st.integers(0, 5000))
def test_what_is_written_is_read_back(state, layer, channel):
    for each in (state, PageState(layer=layer, channel=channel)):
        assert decode(dict(parse_qsl(encode(each)))) == each


def test_a_default_page_has_a_short_link():
    assert encode(PageState()) == "v=1"


@given(
    st.dictionaries(
        st.sampled_from(
            ["tab", "m", "w", "a", "b", "lk", "l", "c", "t", "sd", "k", "x", "g", "r", "ps", "ex", "sm", "pr"]
        ),
        st.text(),
    )
)
def test_any_text_gives_a_state_within_its_ranges(query):
    state = decode(query)
    assert 1.0 <= state.weight_bits <= 8.0
    assert state.tab in permalink.TABS
    assert set(state.allowed_bits) <= set(range(1, 9))
    assert 0 <= state.seed <= permalink.MAX_SEED
    assert state.sampler in ("", *permalink.SAMPLERS)


def test_samplers_are_those_of_the_library():
    assert set(permalink.SAMPLERS) == set(SCHEDULERS)


def test_prompts_are_printable_lines_within_the_limits():
    text = "  a cat \n\n\x07bell\n" + "x" * 400 + "\n" + "a dog\n" * 30
    lines = decode({"pr": text}).prompts.split("\n")
    assert lines == ["a cat", "x" * permalink.MAX_LETTERS, *["a dog"] * (permalink.MAX_PROMPTS - 2)]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "four", "", "1e999"])
def test_a_budget_that_is_no_number_keeps_the_default(text):
    assert decode({"w": text}).weight_bits == PageState().weight_bits


@pytest.mark.parametrize(("text", "expected"), [("99", 8.0), ("-3", 1.0), ("2.5", 2.5)])
def test_a_budget_outside_the_range_is_clamped(text, expected):
    assert decode({"w": text}).weight_bits == expected


@pytest.mark.parametrize("name", ["../secrets", "/etc/passwd", "a/b", "<b>", "x" * 500])
def test_a_name_is_never_a_path_or_markup(name):
    state = decode({"m": name, "l": name})
    assert (state.model, state.layer) == ("sprites-ldm", None)


def test_a_channel_without_a_layer_is_dropped():
    assert decode({"c": "7"}).channel is None
