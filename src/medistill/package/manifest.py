"""What a package says about itself: one JSON text with one spelling.

The text is canonical (RFC 8785, the JSON Canonicalization Scheme), so two manifests that say the same are the same
bytes, and a digest of the text is a digest of what it says. Every setting is stated and none is null: a receiver
never has to guess a default, and an absent key means "not known".
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medistill.errors import PackageError, Tampered, Unsupported
from medistill.evidence import Labels
from medistill.files import digest
from medistill.package.archive import MANIFEST, RESEND, SIGNATURE
from medistill.recipe import AugmentSettings, Encoding, Enlarging, NetworkSettings, Start
from medistill.text import ClassName, Text, Word, visible

FORMAT: Final = "medistill-package"
VERSION: Final = 1
PRIVACY: Final = "Not anonymized, not differentially private."
MAX_IMAGES = 50_000
MAX_SIDE = 4096
MAX_CLASSES = 1000
MAX_BYTES = 2**24
MAX_FILM_VALUES = 2**27
MAX_RECORD_BYTES = 2**20
SUM_TOLERANCE = 1e-4

Model = TypeVar("Model", bound=BaseModel)


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=10**9)]
Intensity = Annotated[float, Field(ge=-1e4, le=1e4)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Fraction = Annotated[float, Field(ge=0, le=1)]
ClassNames = Annotated[tuple[ClassName, ...], Field(min_length=2, max_length=MAX_CLASSES)]


class Part(BaseModel):
    """One object of the manifest: frozen, and strict about names, types and numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class PixelRange(Part):
    """What the lowest and the highest 8-bit pixel stand for, as intensities."""

    low: Intensity
    high: Intensity

    @model_validator(mode="after")
    def _has_an_extent(self) -> Self:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        return self


class ImageForm(Part):
    """How many synthetic images there are, their shape in pixels, and how pixels and labels are stored.

    Attributes:
        labels: whether a label is a class or probabilities.
        encoding: the type of a stored pixel.
        range: what 8-bit pixels stand for; None where pixels are intensities already.
    """

    count: int = Field(ge=1, le=MAX_IMAGES)
    channels: Literal[1, 3]
    height: int = Field(ge=1, le=MAX_SIDE)
    width: int = Field(ge=1, le=MAX_SIDE)
    labels: Labels
    encoding: Encoding = "float32"
    range: PixelRange | None = None

    @model_validator(mode="after")
    def _eight_bits_have_a_range(self) -> Self:
        if (self.encoding == "uint8") != (self.range is not None):
            raise ValueError("range belongs to the encoding uint8, and to no other")
        return self

    @property
    def error(self) -> float:
        """By how much an intensity between 0 and 1 may differ from what was encoded."""
        if self.range is not None:
            return (self.range.high - self.range.low) / 255 / 2
        return {"float32": 0.0, "float16": 2.0**-12}[self.encoding]


class Transform(Part):
    """From stored pixels to what networks see: (pixel - mean) / std, once and nowhere else.

    Attributes:
        scale: "unit": a stored pixel is an intensity, 0 black and 1 white; it may lie slightly outside.
        mean: one intensity a channel.
        std: one intensity a channel, above 0.
    """

    scale: Literal["unit"] = "unit"
    mean: tuple[Intensity, ...] = Field(min_length=1, max_length=3)
    std: tuple[Annotated[float, Field(gt=0, le=1e4)], ...] = Field(min_length=1, max_length=3)


class Training(Part):
    """How a receiver should train; the learning rate that was learned with the images is stored beside them.

    Attributes:
        network: the architecture, width and depth that the images were made with and judged on.
        batch_size: films a step, or None for all of them.
        rate: learning rate with which these settings were judged.
        schedule: how the rate changes over the steps, for instance "constant" or "cosine".
        inner_rate_learned: False where `inner_rate` was merely chosen.
        formation: where every image holds several films, how many in a row, and how many rows; None for one film.
        enlarging: how such films are brought to the side of the image; None for bilinearly.
        class_offsets: what is added to a trained network's logits, in the order of the classes; None for nothing.
    """

    network: NetworkSettings
    steps: Count
    batch_size: Count | None = None
    rate: Rate
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, le=1000)
    schedule: Literal["constant", "cosine"]
    augment: AugmentSettings
    inner_rate_learned: bool
    formation: int | None = Field(None, ge=2, le=8)
    enlarging: Enlarging | None = None
    class_offsets: tuple[Annotated[float, Field(ge=-100, le=100)], ...] | None = None

    @model_validator(mode="after")
    def _images_were_made_with_it(self) -> Self:
        if self.network.architecture == "resnet18bn":
            raise ValueError("nothing is distilled through batch norm: name the network that the images were made with")
        return self


class Signer(Part):
    """Who signs the manifest: the name they give themselves, and their public key as minisign writes it."""

    name: Word
    public_key: str = Field(pattern=r"^RW[A-Za-z0-9+/]{54}$")


class Source(Part):
    """A package that a merged one was made of: its name and id, who signed it, and what made its images."""

    name: Word
    package_id: Digest
    signer: Signer | None = None
    method: Text


class Provenance(Part):
    """Where the images come from, said plainly.

    Attributes:
        method: what made them, for instance "pruned trajectory matching" or "not distilled here".
        start: what the first step began with; "unknown" where nobody recorded it.
        leaks_real_images: True where an image may show a real one; always True where `start` is "real".
        privacy: the one sentence that version 1 can say; a stronger claim needs a version that carries its proof.
        data_fingerprint: SHA-256 of the real images and their splits, or None where unknown.
        recipe_digest: SHA-256 of the resolved recipe, or None where there is none.
        software: versions by name.
        sources: of a merged package, those it was made of; None for any other.
    """

    method: Text
    start: Start | Literal["unknown"]
    leaks_real_images: bool
    privacy: Literal["Not anonymized, not differentially private."] = PRIVACY
    data_fingerprint: Digest | None = None
    recipe_digest: Digest | None = None
    software: dict[Word, Word] = Field(max_length=64)
    sources: tuple[Source, ...] | None = Field(None, min_length=2, max_length=1000)

    @model_validator(mode="after")
    def _real_images_leak(self) -> Self:
        if self.start == "real" and not self.leaks_real_images:
            raise ValueError("images that started as real ones may show them: set leaks_real_images to true")
        return self


class Terms(Part):
    """What a receiver may do with the images; nobody may ever try to find a person in them.

    Attributes:
        use: for research on health, for any research, or for anything.
        commercial: whether also for profit.
        redistribution: whether they may be passed on, under the same terms.
        ethics_approval: whether a receiver needs one before any use.
        reidentification: never allowed.
        contact: whom to ask and to tell, or None where nobody is named.
        expires: the last day on which they may be used, or None where there is none.
    """

    use: Literal["health-research", "any-research", "any"] = "health-research"
    commercial: bool = False
    redistribution: bool = False
    ethics_approval: bool = False
    reidentification: Literal[False] = False
    contact: Text | None = None
    expires: date | None = None


class FileEntry(Part):
    """One file beside the manifest: its path in the package, its size in bytes, its SHA-256."""

    path: str = Field(max_length=128)
    bytes: int = Field(ge=0)
    sha256: Digest


class Manifest(Part):
    """Everything that a package says about itself.

    Attributes:
        package_id: SHA-256 of the canonical JSON of everything else here.
        classes: names in the order of the label indices; match classes of two packages by name, never by index.
        terms: what a receiver may do with it.
        class_prior: each class's share of the holder's training images, or None where the holder keeps it.
        signer: who signed these statements, or None where nobody did.
    """

    format: Literal["medistill-package"] = FORMAT
    version: Literal[1] = VERSION
    name: Word
    package_id: Digest
    classes: ClassNames
    images: ImageForm
    transform: Transform
    training: Training
    provenance: Provenance
    terms: Terms
    class_prior: dict[str, Fraction] | None = None
    signer: Signer | None = None
    files: tuple[FileEntry, ...]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must differ: a name comes twice")
        if not len(self.transform.mean) == len(self.transform.std) == self.images.channels:
            raise ValueError(
                f"transform has {len(self.transform.mean)} mean(s) and {len(self.transform.std)} std(s); expected one "
                f"a channel, and images have {self.images.channels}"
            )
        formation, form = self.training.formation or 1, self.images
        if form.height % formation or form.width % formation:
            raise ValueError(f"formation {formation} does not divide images of {form.width} x {form.height}")
        values = form.count * form.channels * form.height * form.width * formation**2
        if self.training.enlarging is not None and formation == 1:
            raise ValueError("training.enlarging says how the films of a formation are enlarged; there is no formation")
        films = form.count * formation**2
        if not films_fit(films, values, formation):
            raise ValueError(
                f"a formation of {formation} gives {films:,} films, {values:,} values together; at most {MAX_IMAGES:,} "
                f"and {MAX_FILM_VALUES:,} are allowed"
            )
        if self.training.class_offsets is not None and len(self.training.class_offsets) != len(self.classes):
            raise ValueError(
                f"training.class_offsets has {len(self.training.class_offsets)} numbers; expected one a class, and "
                f"there are {len(self.classes)}"
            )
        if self.class_prior is not None:
            if set(self.class_prior) != set(self.classes):
                raise ValueError("class_prior must name exactly the classes")
            if abs(sum(self.class_prior.values()) - 1) > SUM_TOLERANCE:
                raise ValueError(f"class_prior must sum to 1; it sums to {sum(self.class_prior.values()):g}")
        return self


def films_fit(films: int, values: int, formation: int) -> bool:
    """Whether a package may hold so many films; of a formation a small file holds many, so their values are bounded."""
    return films <= MAX_IMAGES and (formation == 1 or values <= MAX_FILM_VALUES)


def check_class_names(names: Sequence[str]) -> None:
    """Refuse class names that no package could carry, before any work is spent on them.

    Raises:
        PackageError: a name is empty, too long, invisible in part, or would act as a formula in a spreadsheet; two are
            alike, or there are too few or too many.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PackageError(f"class names: found {twice!r} twice; expected different names. Rename one.")
    validated(_Classes, {"classes": tuple(names)}, "class names")


class _Classes(Part):
    classes: ClassNames


def listing(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """What a manifest's `files` must say about these contents: all but itself and the signature over it."""
    return [
        {"path": path, "bytes": len(files[path]), "sha256": digest(files[path])}
        for path in sorted(files)
        if path not in (MANIFEST, SIGNATURE)
    ]


def build(draft: Manifest, files: Mapping[str, bytes]) -> bytes:
    """The bytes of `draft` once it lists `files` and carries the package id that follows."""
    body = draft.model_dump(mode="json", exclude_none=True, exclude={"package_id"}) | {"files": listing(files)}
    return rfc8785.dumps(body | {"package_id": digest(rfc8785.dumps(body))})


def written(record: BaseModel, path: str) -> bytes:
    """A record as canonical JSON.

    Raises:
        PackageError: it holds a number that JSON cannot carry exactly.
    """
    try:
        return rfc8785.dumps(record.model_dump(mode="json"))
    except rfc8785.CanonicalizationError as error:
        raise PackageError(f"{path}: {error}. Expected finite numbers and whole ones below 2^53.") from error


def parse(files: Mapping[str, bytes]) -> Manifest:
    """The manifest among `files`, once every other file is as it says.

    Raises:
        Tampered: a file is missing, added or changed, the JSON is not canonical, or the package id does not follow.
        Unsupported: the version is not 1.
        PackageError: there is no manifest, or a statement is not allowed.
    """
    if MANIFEST not in files:
        raise PackageError(f"found no {MANIFEST}; every package has one. Check that this is the file you meant.")
    if len(files[MANIFEST]) > MAX_BYTES:
        raise PackageError(f"{MANIFEST}: found over {MAX_BYTES:,} bytes, the most allowed. {RESEND}")
    value = _canonical_value(files[MANIFEST], MANIFEST)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise PackageError(f'{MANIFEST}: expected "format" to be "{FORMAT}". Check that this is the file you meant.')
    if (version := value.get("version")) != VERSION or type(version) is not int:
        raise Unsupported(
            f"{MANIFEST}: found version {repr(version)[:20]}; this medistill reads version {VERSION}. Update medistill."
        )
    _check_files(value.get("files"), listing(files))
    spoken = {key: item for key, item in value.items() if key != "files"}
    if len(rfc8785.dumps(spoken)) > MAX_RECORD_BYTES:
        raise PackageError(f"{MANIFEST}: found over {MAX_RECORD_BYTES:,} bytes beside its list of files. {RESEND}")
    body = {key: item for key, item in value.items() if key != "package_id"}
    if value.get("package_id") != digest(rfc8785.dumps(body)):
        raise Tampered(f"{MANIFEST}: its package_id does not follow from the rest of it. {RESEND}")
    manifest = validated(Manifest, files[MANIFEST], MANIFEST)
    if rfc8785.dumps(manifest.model_dump(mode="json", exclude_none=True)) != files[MANIFEST]:
        raise PackageError(f"{MANIFEST}: found a setting left out or null; expected every one stated. {RESEND}")
    return manifest


def record(content: bytes, model: type[Model], path: str) -> Model:
    """A record from canonical JSON, for instance the evidence in a report.

    Raises:
        PackageError: it is too long, not canonical, not what `model` allows, or says something that does not show.
    """
    if len(content) > MAX_RECORD_BYTES:
        raise PackageError(f"{path}: found {len(content):,} bytes; at most {MAX_RECORD_BYTES:,} are allowed.")
    value = _canonical_value(content, path)
    found = validated(model, content, path)
    for text in _texts(value):
        try:
            visible(text)
        except ValueError as error:
            raise PackageError(f"{path}: found {ascii(text)[:80]}; {error}.") from error
    return found


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts(each)


def validated(model: type[Model], value: bytes | Mapping[str, Any], path: str) -> Model:
    """`value`, JSON text or Python values, as a `model`, with the first fault as a PackageError."""
    try:
        if isinstance(value, bytes):
            return model.model_validate_json(value, strict=True)
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part)[:64] for part in fault["loc"])
    found = f"{key!r}: found {repr(fault['input'])[:80]}. " if key else ""
    reason = fault["msg"].removeprefix("Value error, ").rstrip(".")
    raise PackageError(f"{path}: {found}{reason}. docs/format.md says what is allowed.")


def _canonical_value(content: bytes, path: str) -> Any:
    try:
        value = json.loads(content)
        canonical = rfc8785.dumps(value)
    except (ValueError, RecursionError):
        raise PackageError(f"{path}: found text that is not plain JSON of modest depth and numbers. {RESEND}") from None
    if canonical != content:
        raise Tampered(f"{path}: its JSON is not in the one canonical spelling (RFC 8785). {RESEND}")
    return value


def _check_files(found: Any, expected: list[dict[str, Any]]) -> None:
    if found == expected:
        return
    entries = found if isinstance(found, list) else []
    listed = {str(entry.get("path"))[:128]: entry for entry in entries if isinstance(entry, dict)}
    for entry in expected:
        path = entry["path"]
        if path not in listed:
            raise Tampered(f"{path}: found a file that {MANIFEST} does not list. {RESEND}")
        if listed.pop(path) != entry:
            raise Tampered(f"{path}: its bytes are not the ones {MANIFEST} lists. {RESEND}")
    for path in listed:
        raise Tampered(f"{path!r}: {MANIFEST} lists this file, but it is missing. {RESEND}")
    raise Tampered(f"{MANIFEST}: its list of files is not in order. {RESEND}")
