"""A distilled set, what a receiver must know to train on it, and the evidence, sealed in one file.

A package is data only: no code, no pickle, nothing compressed, nothing extracted to disk. It has exactly one form, so
whoever opens it recomputes every byte that is not content and compares. docs/format.md is the specification.
"""

from medistill.package.manifest import (
    PRIVACY,
    FileEntry,
    ImageForm,
    Manifest,
    Provenance,
    Signer,
    Source,
    Terms,
    Training,
    Transform,
    check_class_names,
)
from medistill.package.sealed import NARROW, SUFFIX, Package, image_form, open_package, pack, sign_package, signer_of
from medistill.package.signature import fingerprint
from medistill.package.terms import common_terms, read_terms

__all__ = [
    "NARROW",
    "PRIVACY",
    "SUFFIX",
    "FileEntry",
    "ImageForm",
    "Manifest",
    "Package",
    "Provenance",
    "Signer",
    "Source",
    "Terms",
    "Training",
    "Transform",
    "check_class_names",
    "common_terms",
    "fingerprint",
    "image_form",
    "open_package",
    "pack",
    "read_terms",
    "sign_package",
    "signer_of",
]
