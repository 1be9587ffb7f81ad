"""Text that two people read alike: what a package, and what is measured, may say in words."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_UNSEEN = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x2800, 0x2800)),
    *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)),
)
"""What shows nothing though its category does not tell, first and last: fillers, joiners, variation selectors, places
kept for more of them (Default_Ignorable_Code_Point in the Unicode Character Database), and the Braille pattern of no
dot. Written out, since what a version of Python knows as unassigned is not the same everywhere."""
_MARKS_IN_A_ROW = 30
"""More than any writing needs (UAX 15, "stream-safe"); to put many in order takes the square of their number."""


def visible(text: str) -> str:
    """The text as it is.

    Raises:
        ValueError: something in it does not show, or shows as something else.
    """
    marks = 0
    for letter in text:
        code, category = ord(letter), unicodedata.category(letter)
        if category in _HIDDEN or any(first <= code <= last for first, last in _UNSEEN):
            raise ValueError("it must not hold control, invisible or text-direction characters: type it again")
        if letter != " " and category == "Zs":
            raise ValueError("it must hold no other space than the one of the space bar: type it again")
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks > _MARKS_IN_A_ROW:
            raise ValueError(f"it must not pile more than {_MARKS_IN_A_ROW} marks on a letter: type it again")
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
