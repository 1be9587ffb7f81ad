"""Text that two people read alike: what a package, and what is measured, may say in words."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

_HIDDEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164"
    "\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""What shows nothing though its category does not tell: fillers, joiners, variation selectors, places kept for more of
them (Default_Ignorable_Code_Point in the Unicode Character Database), and the Braille pattern of no dot. Written out,
since what a version of Python knows as unassigned is not the same everywhere."""
_MARKS_IN_A_ROW = 30
"""More than any writing needs (UAX 15, "stream-safe"); to put many in order takes the square of their number."""


def visible(text: str) -> str:
    """The text as it is.

    Raises:
        ValueError: something in it does not show, or shows as something else.
    """
    marks, hides = 0, _UNSEEN.search(text) is not None
    for letter in text:
        category = unicodedata.category(letter)
        if hides or category in _HIDDEN:
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
