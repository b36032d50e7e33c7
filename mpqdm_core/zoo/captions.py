"""Captions of the sprites: many ways to name a scene, and what a caption asks for.

    a small red star on a blue background

A caption always names the kind; size, colour and background may be missing. A background goes by its own
name or by the plain colour it has, so that a word may mean more than one of them: both `sky` and `night` are
blue.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from mpqdm_core.errors import SettingsError
from mpqdm_core.zoo import sprites
from mpqdm_core.zoo.sprites import SpriteAttributes

BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    "sky": ("sky", "light blue", "blue"),
    "night": ("night", "dark blue", "blue"),
    "mint": ("mint", "light green", "green"),
    "lavender": ("lavender", "light purple", "purple"),
    "cream": ("cream", "light yellow", "yellow"),
    "rose": ("rose", "light pink", "pink"),
}
"""What each background may be called, its own name first."""

NAMED = 0.8  # share of captions that name the size; the same for colour and background
OWN_NAME = 0.5  # share of named backgrounds that go by their own name
BEFORE_BACKGROUND, AFTER_BACKGROUND = " on a ", " background"
ARTICLES = ("a", "an")


def paraphrase(scene: SpriteAttributes, chance: random.Random) -> str:
    """One caption that is true of a scene, now and then without size, colour or background."""
    words = [scene.kind]
    if chance.random() < NAMED:
        words.insert(0, scene.colour)
    if chance.random() < NAMED:
        words.insert(0, scene.size)
    caption = " ".join(["an" if words[0][0] in "aeiou" else "a", *words])
    if chance.random() >= NAMED:
        return caption
    own, *others = BACKGROUND_WORDS[scene.background]
    word = own if chance.random() < OWN_NAME else chance.choice(others)
    return f"{caption}{BEFORE_BACKGROUND}{word}{AFTER_BACKGROUND}"


def asked_for(caption: str) -> dict[str, tuple[str, ...]]:
    """What a caption names: for "kind", "size", "colour", "background" the values that would do.

    Raises:
        SettingsError: a word is none that the captions of the sprites use, or the kind is missing.
    """
    front, on, back = caption.strip().lower().partition(BEFORE_BACKGROUND)
    asked: dict[str, tuple[str, ...]] = {}
    for word in front.split():
        if word not in ARTICLES:
            asked[_attribute(word, caption)] = (word,)
    if "kind" not in asked:
        raise SettingsError(f"a caption must name one of {', '.join(sprites.KINDS)}, got {caption!r}")
    if on:
        name = back.removesuffix(AFTER_BACKGROUND)
        fitting = tuple(own for own, words in BACKGROUND_WORDS.items() if name in words)
        if not fitting:
            raise SettingsError(f"{name!r} in {caption!r} is no background of the sprites")
        asked["background"] = fitting
    return asked


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption may hold, sorted."""
    return tuple(sorted(set(_words())))


def _words() -> Iterable[str]:
    yield from (*ARTICLES, "on", "background", *sprites.KINDS, *sprites.SIZES, *sprites.COLOURS)
    for names in BACKGROUND_WORDS.values():
        for name in names:
            yield from name.split()


def _attribute(word: str, caption: str) -> str:
    for attribute, values in (
        ("kind", sprites.KINDS), ("size", sprites.SIZES), ("colour", sprites.COLOURS)
    ):  # fmt: skip
        if word in values:
            return attribute
    raise SettingsError(f"{word!r} in {caption!r} is no word of the sprites' captions")
