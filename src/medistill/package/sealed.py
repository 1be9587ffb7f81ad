"""Sealing a set into one file, and opening one.

There is one judge. `open_package` reads the file once into memory and checks everything; `pack` builds the bytes, lets
the same judge read them and only then writes them. So whatever `pack` wrote opens, and whatever opens could have been
written by `pack`.
"""

import itertools
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import minisign
import numpy as np
from numpy.typing import NDArray

from medistill.errors import PackageError, Tampered, Unsupported
from medistill.evidence import Utility
from medistill.files import digest, write_whole
from medistill.package import archive, documents, manifest, medmnist, previews, signature, tensors
from medistill.package.manifest import Manifest, Provenance, Terms, Training, Transform
from medistill.package.terms import refuse_expired
from medistill.recipe import Encoding

SUFFIX = ".medistill"
RECIPE = "recipe.toml"
UTILITY = "reports/utility.json"
_RECIPE_BYTES, _RECIPE_LINE = 2**16, 1000
NARROW = Terms()
"""The terms of a package whose maker decided nothing: the narrowest."""


@dataclass(frozen=True, eq=False)
class Package:
    """A distilled set that was checked in full; it exists in no other state.

    The arrays cannot be written to. In torch, take copies: `torch.tensor(package.images)`.

    Attributes:
        manifest: what the package says about itself.
        images: stored pixels, [n, channels, height, width]; networks see `manifest.transform` of them.
        labels: class indices [n], or probabilities [n, classes].
        inner_rate: the learning rate that belongs to the images.
        recipe_toml: the resolved recipe, without paths, or None.
        utility: what was measured on the set, or None.
        digest: SHA-256 of the file's bytes.
        signed_on: the day on which `manifest.signer` signed it, or None where nobody did.
    """

    manifest: Manifest
    images: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int64] | NDArray[np.float32] = field(repr=False)
    inner_rate: float
    recipe_toml: str | None = field(repr=False)
    utility: Utility | None = field(repr=False)
    digest: str
    signed_on: date | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names in the order of the label indices."""
        return self.manifest.classes

    @property
    def targets(self) -> NDArray[np.float32]:
        """A probability for each image and class, [n, classes], as a new array; hard labels become 0 and 1."""
        if self.labels.ndim == 2:
            return np.array(self.labels, dtype=np.float32)
        return np.eye(len(self.class_names), dtype=np.float32)[self.labels]


def pack(
    path: str | Path,
    *,
    name: str,
    images: NDArray[np.float32],
    labels: NDArray[np.int64] | NDArray[np.float32],
    inner_rate: float,
    class_names: Sequence[str],
    transform: Transform,
    training: Training,
    provenance: Provenance,
    terms: Terms = NARROW,
    encoding: Encoding = "float32",
    class_prior: Mapping[str, float] | None = None,
    recipe_toml: str | None = None,
    utility: Utility | None = None,
) -> Package:
    """Seal a distilled set in one file, and return it as a receiver will open it.

    The same contents give the same bytes, on any machine, at any time.

    Args:
        path: the file to write, ending in .medistill; one that exists is replaced, unless it holds the same and is
            signed.
        name: what people call the set, up to 64 characters.
        images: intensities, float32, 0 black and 1 white, not normalized, [n, channels, height, width].
        labels: class indices, integers [n], or probabilities, float32 [n, classes].
        inner_rate: learning rate above 0 that was learned with the images; stored as float32.
        class_names: 2 to 1000 names in the order of the label indices.
        transform: what turns stored pixels into what networks see.
        training: how a receiver should train.
        provenance: where the images come from.
        terms: what a receiver may do with them.
        encoding: how a pixel is stored; the smaller ones are a half and a quarter of float32, and round.
        class_prior: each class's share of the holder's training images; left out, it stays private.
        recipe_toml: the resolved recipe; one that names `source.path` is refused.
        utility: what was measured; it must speak of the same data and recipe as `provenance`.

    Raises:
        PackageError: the suffix is another, an array has another type or shape or holds values nobody could train on,
            a name is not plain text, or parts contradict each other. Nothing is written.
        StorageError: the file could not be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise PackageError(f"{path.name}: expected a name that ends in {SUFFIX}. Name it {path.stem}{SUFFIX}.")
    try:
        form = image_form(images, labels, len(class_names), encoding)
        draft = manifest.validated(
            Manifest,
            {
                "name": name,
                "package_id": "0" * 64,
                "classes": tuple(class_names),
                "images": form,
                "transform": transform,
                "training": training,
                "provenance": provenance,
                "terms": terms,
                "class_prior": None if class_prior is None else dict(class_prior),
                "files": (),
            },
            archive.MANIFEST,
        )
        tensors.check(images, labels, inner_rate, len(class_names))
        images = tensors.encoded(images, form)
        files = {tensors.PATH: tensors.build(images, labels, inner_rate, form, len(class_names))}
        files.update(_companions(draft, files[tensors.PATH], images, labels))
        if recipe_toml is not None:
            files[RECIPE] = recipe_toml.encode(errors="surrogatepass")  # the judge refuses what is not UTF-8
        if utility is not None:
            files[UTILITY] = manifest.written(utility, UTILITY)
        content = archive.build(files | {archive.MANIFEST: manifest.build(draft, files)})
        package = _judged(content)
    except PackageError as error:
        raise type(error)(f"{path.name}: {error}") from error
    signed = _signed_already(path, content)
    if signed is not None:
        return signed
    write_whole(path, content)
    return package


def signer_of(key: minisign.SecretKey, name: str) -> manifest.Signer:
    """Whom a manifest names that is signed with this key.

    Raises:
        PackageError: the name is not plain text of 1 to 64 characters.
    """
    public_key = key.get_public_key().to_base64().decode()
    return manifest.validated(manifest.Signer, {"name": name, "public_key": public_key}, "signer")


def sign_package(path: str | Path, name: str, key: minisign.SecretKey, day: date) -> Package:
    """Sign a package in place; who signed it before no longer does.

    Args:
        path: of the package.
        name: whom the signer calls themselves, 1 to 64 characters.
        key: their secret key, decrypted; see `medistill.keys`.
        day: of signing.

    Raises:
        PackageError: the package would not open, or the name is not plain text. The file stays as it was.
        StorageError: the file could not be written.
    """
    path = Path(path)
    try:
        files = archive.parse(_content(path))
        said = manifest.parse(files)
        signer = signer_of(key, name)
        parts = {at: part for at, part in files.items() if at not in (archive.MANIFEST, archive.SIGNATURE)}
        text = manifest.build(said.model_copy(update={"signer": signer}), parts)
        signed = {archive.MANIFEST: text, archive.SIGNATURE: signature.build(text, signer, key, day)}
        content = archive.build(parts | signed)
        package = _judged(content)
    except PackageError as error:
        raise type(error)(f"{path.name}: {error}") from error
    write_whole(path, content)
    return package


def open_package(
    path: str | Path, *, trusted_keys: Sequence[str] | None = None, allow_unsigned: bool = False
) -> Package:
    """Open a package after checking every byte of it; nothing is extracted to disk and no code in it can run.

    Returns numpy arrays, so torch is not needed. A package that opens is whole and says what its maker's medistill
    wrote. Whom its signature names is known only as far as their key is: name the keys you trust.

    Args:
        path: of the package.
        trusted_keys: public keys as minisign writes them, "RW..."; the package must be signed with one of them. None
            takes any valid signature.
        allow_unsigned: open a package that nobody signed; `trusted_keys` still holds.

    Raises:
        Tampered: a byte differs from the manifest, the signature, or the one form a package has.
        Unsupported: it has a version or a part that this medistill does not know.
        PackageError: the file is missing, is no package, is not signed, not with a trusted key, states something that
            is not allowed, or its terms of use have ended.
    """
    path = Path(path)
    try:
        package = _judged(_content(path))
        refuse_expired(package.manifest.terms, date.today())
        signer = package.manifest.signer
        if signer is None and not allow_unsigned:
            raise PackageError(
                "it is not signed, so nobody vouches for it. Ask its maker to sign it (medistill sign), or allow "
                "unsigned packages for this call (--allow-unsigned, allow_unsigned=True)."
            )
        if trusted_keys is not None and (signer is None or signer.public_key not in trusted_keys):
            if signer is None:
                raise PackageError(
                    "it is signed by nobody; expected one of the trusted keys. Ask its maker to sign it."
                )
            raise PackageError(
                f"it is signed by {signer.name} with a key that is not among the trusted ones, "
                f"{signature.fingerprint(signer.public_key)}. Compare these digits with its owner, then trust it."
            )
        return package
    except PackageError as error:
        raise type(error)(f"{path.name}: {error}") from error


def _content(path: Path) -> bytes:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise PackageError(f"found a folder or a device; expected a {SUFFIX} file. Give the path of the file.")
        if found.st_size > archive.MAX_BYTES:
            raise PackageError(
                f"found {found.st_size:,} bytes; a package has at most {archive.MAX_BYTES:,}. Check that this is the "
                "file you meant."
            )
        with path.open("rb") as stream:
            return stream.read(found.st_size + 1)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "refused by the system"
        raise PackageError(f"cannot be read: {reason}. Check the path and the permissions.") from error
    except ValueError as error:
        raise PackageError("found a path that no file can have. Check the path.") from error


def _judged(content: bytes) -> Package:
    """The package that these bytes are, from the outside in: archive, manifest, arrays, previews, texts."""
    files = archive.parse(content)
    said = manifest.parse(files)
    signed_on = _signed_on(said, files)
    parts = {path: part for path, part in files.items() if path not in (archive.MANIFEST, archive.SIGNATURE)}
    if (arrays := parts.pop(tensors.PATH, None)) is None:
        raise PackageError(f"found no {tensors.PATH}; every package has one. {archive.RESEND}")
    images, labels, inner_rate = tensors.parse(arrays, said.images, len(said.classes))
    for path, expected in _companions(said, arrays, images, labels):
        if (found := parts.pop(path, None)) is None:
            raise PackageError(f"found no {path}; every package has one. {archive.RESEND}")
        if found != expected:
            raise Tampered(f"{path}: it does not show what the package trains on or states. {archive.RESEND}")
    recipe, utility = parts.pop(RECIPE, None), parts.pop(UTILITY, None)
    if parts:
        raise Unsupported(f"{min(parts)}: found a file that this medistill does not know. Update medistill.")
    return Package(
        manifest=said,
        images=images,
        labels=labels,
        inner_rate=inner_rate,
        recipe_toml=None if recipe is None else _recipe_text(recipe),
        utility=None if utility is None else _utility(utility, said.provenance),
        digest=digest(content),
        signed_on=signed_on,
    )


def _companions(
    said: Manifest, arrays: bytes, images: NDArray[np.float32], labels: tensors.HardOrSoft
) -> Iterator[tuple[str, bytes]]:
    """Path and content of everything that follows from the arrays and the manifest, one at a time."""
    for_catalogues = {tensors.PATH: arrays}
    pictures = previews.render(images, labels, said.classes)
    for path, content in itertools.chain(pictures, [(medmnist.PATH, medmnist.render(images, labels))]):
        if path in (previews.TABLE, medmnist.PATH):
            for_catalogues[path] = content
        yield path, content
    yield from documents.render(said, for_catalogues)


def _signed_already(path: Path, content: bytes) -> Package | None:
    """The package that lies there, if it is these very contents, signed."""
    try:
        there = _content(path)
        files = archive.parse(there)
        package = _judged(there)
    except PackageError:
        return None
    if package.manifest.signer is None:
        return None
    parts = {at: part for at, part in files.items() if at not in (archive.MANIFEST, archive.SIGNATURE)}
    text = manifest.build(package.manifest.model_copy(update={"signer": None}), parts)
    return package if archive.build(parts | {archive.MANIFEST: text}) == content else None


def _signed_on(said: Manifest, files: Mapping[str, bytes]) -> date | None:
    found = files.get(archive.SIGNATURE)
    if (found is None) != (said.signer is None):
        what = "a manifest that names a signer, without a signature" if found is None else "one of nobody"
        raise Tampered(f"{archive.SIGNATURE}: found {what}. {archive.RESEND}")
    if found is None or said.signer is None:
        return None
    return signature.check(found, files[archive.MANIFEST], said.signer)


def image_form(images: object, labels: object, classes: int, encoding: Encoding = "float32") -> manifest.ImageForm:
    """The form in which a package has these arrays.

    Raises:
        PackageError: they have another type or shape than `pack` takes.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4 or not images.size:
        raise PackageError(
            f"images: found {_described(images)}; expected float32 [n, channels, height, width], none of them 0."
        )
    if not isinstance(labels, np.ndarray) or not (_is_hard(labels) or _is_soft(labels, classes)):
        raise PackageError(
            f"labels: found {_described(labels)}; expected integers [{len(images)}] or float32 "
            f"[{len(images)}, {classes}]."
        )
    if len(labels) != len(images):
        raise PackageError(f"labels: found {len(labels)} for {len(images)} images; expected one an image.")
    count, channels, height, width = images.shape
    sizes = {"count": count, "channels": channels, "height": height, "width": width}
    kinds = {"labels": "hard" if labels.ndim == 1 else "soft", "encoding": encoding}
    span = tensors.range_of(images) if encoding == "uint8" else None
    return manifest.validated(manifest.ImageForm, sizes | kinds | {"range": span}, "images")


def _is_hard(labels: NDArray[np.generic]) -> bool:
    return labels.ndim == 1 and labels.dtype.kind in "iu"


def _is_soft(labels: NDArray[np.generic], classes: int) -> bool:
    return labels.ndim == 2 and labels.dtype == np.float32 and labels.shape[1] == classes


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _recipe_text(content: bytes) -> str:
    if len(content) > _RECIPE_BYTES:
        raise PackageError(f"{RECIPE}: found {len(content):,} bytes; at most {_RECIPE_BYTES:,} are allowed.")
    # What a reader of TOML spends on a dotted key grows with the square of its length.
    if (longest := max(map(len, content.split(b"\n")))) > _RECIPE_LINE:
        raise PackageError(f"{RECIPE}: found a line of {longest:,} bytes; at most {_RECIPE_LINE:,} are allowed.")
    try:
        text = content.decode()
        source = tomllib.loads(text).get("source")
    except (ValueError, RecursionError):
        raise PackageError(f"{RECIPE}: found text that is not TOML. {archive.RESEND}") from None
    if isinstance(source, dict) and "path" in source:
        raise PackageError(f"{RECIPE}: it names source.path, a place on the holder's disk. Pack recipe.to_toml().")
    return text


def _utility(content: bytes, provenance: Provenance) -> Utility:
    utility = manifest.record(content, Utility, UTILITY)
    for key in ("data_fingerprint", "recipe_digest"):
        stated = getattr(provenance, key)
        if stated is not None and getattr(utility, key) != stated:
            raise PackageError(f"{UTILITY}: its {key} is not the one of the manifest. Evaluate this very set again.")
    return utility
