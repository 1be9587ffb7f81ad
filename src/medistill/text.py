"""Text that two people read alike: what a package, and what is measured, may say in words."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_UNSEEN = {"\u034f", "\u2800", "\u3164", "\uffa0", *map(chr, (*range(0x115F, 0x1161), *range(0x17B4, 0x17B6)))}
_UNSEEN |= set(map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
"""Letters and marks that show nothing: fillers, joiners, variation selectors, and the Braille pattern of no dot.

Source: Default_Ignorable_Code_Point in the Unicode Character Database, as far as their category does not tell."""


def visible(text: str) -> str:
    """The text as it is.

    Raises:
        ValueError: something in it does not show, or shows as something else.
    """
    for letter in text:
        if unicodedata.category(letter) in _HIDDEN or letter in _UNSEEN:
            raise ValueError("it must not hold control, invisible or text-direction characters: type it again")
        if letter != " " and unicodedata.category(letter) == "Zs":
            raise ValueError("it must hold no other space than the one of the space bar: type it again")
    if unicodedata.normalize("NFC", text) != text:
        raise ValueError("it must be in Unicode normal form C: type it again on another keyboard")
    if text.strip() != text:
        raise ValueError("it must not begin or end with a space")
    return text


def _no_formula(text: str) -> str:
    if unicodedata.normalize("NFKC", text)[0] in "=+-@":
        raise ValueError("a spreadsheet would read a name that begins with = + - or @ as a formula: rename the class")
    return text


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(visible)]
Word = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(visible)]
ClassName = Annotated[Word, AfterValidator(_no_formula)]
