"""The state of the page as a short query string, and back.

A link is written by one person and opened by another, perhaps by hand, perhaps with malice: reading never
fails. What is unknown or not a number falls back to its default, what is out of range is clamped, and nothing
read here names a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

VERSION = 1
TABS = ("model", "outliers", "budget", "distill", "compare", "ablation", "export")
POLICIES = ("optimal", "gain", "kurtosis", "uniform", "head-tail", "random")
WEIGHTINGS = ("none", "relative", "sensitivity")
SCOPES = ("layer", "model")
SIDES = ("weights", "prescaled", "activations")
STATISTICS = ("kurtosis", "crest", "range_ratio", "outlier_fraction", "energy_share")
GRIDS = ("mid-rise", "affine")
SAMPLERS = ("ddim", "ddpm", "pndm", "euler", "euler-ancestral", "dpm-solver++", "flow-euler")
EXEMPTIONS = {"8": "8-bit", "f": "full precision", "b": None}  # b: in the budget
# What a teacher may take off the page with a link: tabs, and groups of controls by these names.
HIDEABLE = (
    *TABS,
    "load",
    "measure",
    "activations",
    "policy",
    "weighting",
    "scope",
    "allowed",
    "more",
    "locks",
    "plan",
    "draw",
    "sets",
)
MAX_LESSON = 99
MAX_EXTRA = 5
ALL_BITS = (1, 2, 3, 4, 5, 6, 7, 8)
MAX_CHANNEL = 1_000_000
MAX_SEED = 2**31 - 1
MAX_LOCKS = 64
MAX_CLASSES = 16
MAX_PROMPTS, MAX_LETTERS = 16, 300  # lines, and letters of a line

_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,120}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageState:
    """Everything about the page that a link carries."""

    tab: str = "model"
    model: str = "sprites-ldm"  # a bundled name; folders of a visitor's machine are never put into a link
    weight_bits: float = 4.0  # average, 1..8
    activation_bits: int | None = 8  # None: activations stay in full precision
    policy: str = "optimal"
    weighting: str = "sensitivity"
    scope: str = "model"
    allowed_bits: tuple[int, ...] = ALL_BITS
    locked: dict[str, int] = field(default_factory=dict)  # layer name -> bits
    extra_groups: int = 0  # MPQ-DM+
    grid: str = "mid-rise"
    range_exponent: float = 2.4
    prescale: bool = True
    exempt: dict[str, str | None] = field(default_factory=dict)  # what differs from the family's rules
    layer: str | None = None  # the selection shared by all panels
    channel: int | None = None
    side: str = "weights"
    statistic: str = "kurtosis"
    step: int = 0  # which recorded denoising step the activation panels show
    seed: int = 0
    classes: tuple[int, ...] = ()
    sampler: str = ""  # one of SAMPLERS; empty: the model's own
    prompts: str = ""  # of a text-to-image model, one a line
    hide: tuple[str, ...] = ()  # names of HIDEABLE, in its order
    lesson: int = 0  # number of the lesson the page was opened from; 0: none


def encode(state: PageState) -> str:
    """Write `state` as a query string without "?"; settings at their default are left out."""
    default = _written(PageState())
    changed = {key: value for key, value in _written(state).items() if value != default[key]}
    return urlencode({"v": str(VERSION), **changed}, safe=":,")


def decode(query: Mapping[str, str]) -> PageState:
    """Read a query; every value is checked and clamped, and what cannot be read keeps its default.

    Args:
        query: names and values as a web framework hands them over; a newer version is read as far as known.
    """
    default = PageState()
    channel = _integer(query.get("c"), None, 0, MAX_CHANNEL)
    layer = _name(query.get("l"), None)
    return replace(
        default,
        tab=_one_of(query.get("tab"), TABS, default.tab),
        model=_name(query.get("m"), default.model) or default.model,
        weight_bits=_number(query.get("w"), default.weight_bits, 1.0, 8.0),
        activation_bits=_activation_bits(query.get("a"), default.activation_bits),
        policy=_one_of(query.get("p"), POLICIES, default.policy),
        weighting=_one_of(query.get("e"), WEIGHTINGS, default.weighting),
        scope=_one_of(query.get("s"), SCOPES, default.scope),
        allowed_bits=_bit_set(query.get("b"), default.allowed_bits),
        locked=_locks(query.get("lk")),
        extra_groups=_integer(query.get("x"), default.extra_groups, 0, MAX_EXTRA) or 0,
        grid=_one_of(query.get("g"), GRIDS, default.grid),
        range_exponent=2.0 if query.get("r") == "2" else default.range_exponent,
        prescale=query.get("ps") != "0",
        exempt=_exempt(query.get("ex")),
        layer=layer,
        channel=channel if layer is not None else None,
        side=_one_of(query.get("side"), SIDES, default.side),
        statistic=_one_of(query.get("st"), STATISTICS, default.statistic),
        step=_integer(query.get("t"), default.step, 0, 10_000) or 0,
        seed=_integer(query.get("sd"), default.seed, 0, MAX_SEED) or 0,
        classes=_classes(query.get("k")),
        sampler=_one_of(query.get("sm"), SAMPLERS, default.sampler),
        prompts=_prompts(query.get("pr")),
        hide=_hidden(query.get("hide")),
        lesson=_integer(query.get("lesson"), default.lesson, 0, MAX_LESSON) or 0,
    )


def _written(state: PageState) -> dict[str, str]:
    return {
        "tab": state.tab,
        "m": state.model,
        "w": f"{state.weight_bits:g}",
        "a": "none" if state.activation_bits is None else str(state.activation_bits),
        "p": state.policy,
        "e": state.weighting,
        "s": state.scope,
        "b": "".join(str(bits) for bits in state.allowed_bits),
        "lk": ",".join(f"{layer}:{bits}" for layer, bits in sorted(state.locked.items())),
        "x": str(state.extra_groups),
        "g": state.grid,
        "r": f"{state.range_exponent:g}",
        "ps": str(int(state.prescale)),
        "ex": ",".join(f"{layer}:{_code(kept)}" for layer, kept in sorted(state.exempt.items())),
        "l": state.layer or "",
        "c": "" if state.channel is None else str(state.channel),
        "side": state.side,
        "st": state.statistic,
        "t": str(state.step),
        "sd": str(state.seed),
        "k": ",".join(str(label) for label in state.classes),
        "sm": state.sampler,
        "pr": _prompts(state.prompts),
        "hide": ",".join(state.hide),
        "lesson": str(state.lesson),
    }


def _one_of(text: str | None, allowed: tuple[str, ...], default: str) -> str:
    return text if text in allowed else default


def _name(text: str | None, default: str | None) -> str | None:
    """A layer or model name: letters, digits, "_", "." and "-" only, so never a path."""
    return text if text and _NAME.fullmatch(text) and ".." not in text else default


def _number(text: str | None, default: float, low: float, high: float) -> float:
    try:
        value = float(text) if text is not None else default
    except ValueError:
        return default
    return default if not math.isfinite(value) else min(max(value, low), high)


def _integer(text: str | None, default: int | None, low: int, high: int) -> int | None:
    if text is None or not re.fullmatch(r"-?[0-9]{1,12}", text):
        return default
    return min(max(int(text), low), high)


def _activation_bits(text: str | None, default: int | None) -> int | None:
    return None if text == "none" else _integer(text, default, 2, 8)


def _bit_set(text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    digits = sorted({int(letter) for letter in text or "" if letter in "12345678"})
    return tuple(digits) or default


def _locks(text: str | None) -> dict[str, int]:
    locks: dict[str, int] = {}
    for item in (text or "").split(",")[:MAX_LOCKS]:
        layer, _, bits = item.rpartition(":")
        if _name(layer, None) and bits in set("12345678"):
            locks[layer] = int(bits)
    return locks


def _exempt(text: str | None) -> dict[str, str | None]:
    changed: dict[str, str | None] = {}
    for item in (text or "").split(",")[:MAX_LOCKS]:
        layer, _, code = item.rpartition(":")
        if _name(layer, None) and code in EXEMPTIONS:
            changed[layer] = EXEMPTIONS[code]
    return changed


def _code(kept: str | None) -> str:
    return next(code for code, name in EXEMPTIONS.items() if name == kept)


def _classes(text: str | None) -> tuple[int, ...]:
    parts = [_integer(part, None, 0, 100_000) for part in (text or "").split(",")[:MAX_CLASSES]]
    return tuple(part for part in parts if part is not None)


def _prompts(text: str | None) -> str:
    """Printable lines, the first of them and their first letters."""
    lines = (line.strip()[:MAX_LETTERS].strip() for line in (text or "").splitlines())
    return "\n".join([line for line in lines if line and line.isprintable()][:MAX_PROMPTS])


def _hidden(text: str | None) -> tuple[str, ...]:
    """Known names only; one tab always stays."""
    asked = set((text or "").split(",")[: 2 * len(HIDEABLE)])
    if asked.issuperset(TABS):
        asked -= set(TABS)
    return tuple(name for name in HIDEABLE if name in asked)
