"""What a receiver may do with a package: few choices, each with its term of the Data Use Ontology.

Terms are statements in the signed manifest, so that a program can read and intersect them; `documents` spells them out
for people. What nobody decided is decided narrowly.

Source of the ontology: Lawson et al., Cell Genomics 2021 (doi 10.1016/j.xgen.2021.100028), purl.obolibrary.org/obo/duo.
"""

import tomllib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal, get_args

from medistill.errors import PackageError
from medistill.package.manifest import Terms, validated

Use = Literal["health-research", "any-research", "any"]
_NARROWEST_FIRST: tuple[Use, ...] = get_args(Use)


def read_terms(path: Path) -> Terms:
    """Terms from a TOML file; what it leaves out has its default.

    Raises:
        PackageError: the file cannot be read, is not TOML, or states something that terms cannot.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackageError(f"{path.name}: cannot be read as TOML in UTF-8. Check the file.") from error
    return validated(Terms, said, path.name)


def common_terms(several: Sequence[Terms]) -> Terms:
    """The widest terms that none of several forbids; a contact only where all name the same."""
    ends = [each.expires for each in several if each.expires is not None]
    contacts = {each.contact for each in several}
    return Terms(
        use=min((each.use for each in several), key=_NARROWEST_FIRST.index),
        commercial=all(each.commercial for each in several),
        redistribution=all(each.redistribution for each in several),
        ethics_approval=any(each.ethics_approval for each in several),
        contact=contacts.pop() if len(contacts) == 1 else None,
        expires=min(ends, default=None),
    )


def refuse_expired(terms: Terms, today: date) -> None:
    """Refuse a package whose time is over.

    Raises:
        PackageError: its terms ended before today.
    """
    if terms.expires is not None and terms.expires < today:
        raise PackageError(
            f"its terms of use ended on {terms.expires}; today is {today}. Delete it, and ask its maker for a new one."
        )
