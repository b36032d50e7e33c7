"""500 mutated addresses: reading never fails, everything is clamped, and what was read is stable."""

from urllib.parse import parse_qsl

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpqdm_core import permalink
from mpqdm_core.permalink import PageState, decode, encode

WHOLE = PageState(
    tab="budget",
    weight_bits=2.75,
    activation_bits=4,
    policy="kurtosis",
    weighting="none",
    scope="layer",
    allowed_bits=(1, 2, 4),
    locked={"mid_block.attentions.0.to_q": 3, "conv_out": 8},
    extra_groups=2,
    grid="affine",
    prescale=False,
    exempt={"conv_in": None},
    layer="up_blocks.1.resnets.0.conv1",
    channel=17,
    side="activations",
    statistic="crest",
    step=5,
    seed=123,
    classes=(1, 5, 7),
    hide=("distill", "policy"),
    lesson=6,
)
ADDRESS = encode(WHOLE)
PIECES = ("%00", "%ff", "../", "<script>", "&", "=", "nan", "-1", "1e999", "9" * 30, ",", ":", "٣", ";")
EDITS = st.tuples(
    st.integers(0, len(ADDRESS)),
    st.integers(0, 6),
    st.one_of(st.text(max_size=6), st.sampled_from(PIECES)),
)


def mutate(address, edits):
    for place, length, text in edits:
        address = address[:place] + text + address[place + length :]
    return address


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EDITS, min_size=1, max_size=5))
def test_a_mutated_address_gives_a_state_within_its_ranges(edits):
    state = decode(dict(parse_qsl(mutate(ADDRESS, edits), keep_blank_values=True)))
    assert 1.0 <= state.weight_bits <= 8.0
    assert state.activation_bits is None or 2 <= state.activation_bits <= 8
    assert state.tab in permalink.TABS and state.policy in permalink.POLICIES
    assert state.weighting in permalink.WEIGHTINGS and state.scope in permalink.SCOPES
    assert state.grid in permalink.GRIDS and state.side in permalink.SIDES
    assert state.statistic in permalink.STATISTICS
    assert state.allowed_bits and set(state.allowed_bits) <= set(permalink.ALL_BITS)
    assert len(state.locked) <= permalink.MAX_LOCKS and set(state.locked.values()) <= set(range(1, 9))
    assert len(state.classes) <= permalink.MAX_CLASSES
    assert 0 <= state.seed <= permalink.MAX_SEED and 0 <= state.step <= 10_000
    assert 0 <= state.lesson <= permalink.MAX_LESSON
    assert set(state.hide) < set(permalink.HIDEABLE) and not set(permalink.TABS) <= set(state.hide)
    for name in (state.model, state.layer or "", *state.locked, *state.exempt):
        assert "/" not in name and "\\" not in name and ".." not in name and "<" not in name
    again = encode(state)
    assert encode(decode(dict(parse_qsl(again)))) == again  # what was accepted is a link like any other


def test_the_whole_address_is_read_back():
    assert decode(dict(parse_qsl(ADDRESS))) == WHOLE


def test_a_link_cannot_hide_every_tab_and_says_each_name_once():
    assert decode({"hide": ",".join(permalink.TABS)}).hide == ()
    assert decode({"hide": "policy,policy,more,,x"}).hide == ("policy", "more")


def test_a_lesson_outside_the_course_is_clamped():
    assert [decode({"lesson": text}).lesson for text in ("7", "-3", "1000", "two")] == [7, 0, 99, 0]
