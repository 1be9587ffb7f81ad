"""What can go wrong, as a tree.

Every message says what was found, what was expected and what to do. None of them carries pixels, a patient's
name, or a path beyond the file's own name: messages end up in tickets and e-mails outside the hospital.
"""


class MedistillError(Exception):
    """Anything medistill refuses on purpose; a traceback of another kind is a bug of ours."""


class RecipeError(MedistillError):
    """A setting is unknown, out of range, or contradicts another."""


class SourceError(MedistillError):
    """Real images could not be read as described."""


class MatchingError(MedistillError):
    """The two sides of a match cannot be compared."""


class PackageError(MedistillError):
    """A package is not what the specification allows."""


class Tampered(PackageError):
    """A package's contents differ from its manifest, or its signature is not one over them."""


class Unsupported(PackageError):
    """A package has a version or part that this reader does not know."""


class MissingPart(MedistillError):
    """This installation lacks what a command needs, for instance torch."""


class StorageError(MedistillError):
    """A file of a run could not be written or read back: no space, no permission, or damaged on disk."""


class TrustError(MedistillError):
    """A key, a passphrase or a decision of trust is missing or not what was expected."""
