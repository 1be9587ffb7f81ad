"""What comes with a package for people and for catalogues: a dataset card, terms in words, a Croissant description.

All of it follows from the manifest and the data, as the previews do, so the reader writes it again and compares: no
text here can say anything that the manifest does not, and nobody can hide a link or a script in it.

Sources: Hugging Face dataset cards (YAML head with `configs`); Croissant 1.1 (mlcommons.org/croissant/1.1) with its
responsible-AI vocabulary, PROV-O and the Data Use Ontology.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from medistill.files import digest
from medistill.package import medmnist, previews, tensors
from medistill.package.manifest import Manifest, Provenance, Terms, Training

CARD, LICENSE, AGREEMENT, CROISSANT = "README.md", "LICENSE", "DUA.md", "croissant.json"
LEAKS = "Warning: these images may show real patients. Treat them like the patients' images themselves."

_USES = {
    "health-research": ("Only for research on health, medicine or biology.", "0000006", "health or medical research"),
    "any-research": ("Only for research, in any field.", "0000042", "general research use"),
    "any": ("For any lawful purpose.", "0000004", "no restriction"),
}


def render(said: Manifest, files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Path and content of each document.

    Args:
        said: the manifest; who signed it and what files it lists does not matter here.
        files: arrays and previews by path.
    """
    yield AGREEMENT, agreement(said.terms).encode()
    yield LICENSE, f"No public license: the terms of use are in {AGREEMENT}.\n".encode()
    yield CARD, "".join(card(said, said.images.count, f"{previews.FOLDER}/*")).encode()
    yield CROISSANT, (json.dumps(_croissant(said, files), indent=1, ensure_ascii=False) + "\n").encode()


def card(said: Manifest, images: int, where: str) -> Iterator[str]:
    """A dataset card in Markdown, in pieces.

    Args:
        said: the manifest.
        images: how many pictures there are.
        where: a pattern for them, from where the card lies.
    """
    made = said.provenance
    yield f"---\npretty_name: {json.dumps(said.name)}\nlicense: other\nlicense_name: data-use-agreement\n"
    yield f"license_link: {AGREEMENT}\ntask_categories:\n- image-classification\ntags:\n- medical\n"
    yield "" if made.leaks_real_images else "- synthetic\n"
    yield "- dataset-distillation\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
    yield f"    path: {where}\n---\n\n# {escaped(said.name)}\n\n"
    if made.leaks_real_images:
        yield f"**{LEAKS}**\n\n"
    yield f"{images} {what_images(made)}s, {escaped(made.method)}, begun from {made.start}. {made.privacy} They teach "
    yield "networks; they are not films to read a diagnosis from.\n\n| label | class |\n|---|---|\n"
    yield from (f"| {index} | {escaped(name)} |\n" for index, name in enumerate(said.classes))
    mean, std = list(said.transform.mean), list(said.transform.std)
    yield f"\nNetworks see (x - mean) / std of intensities from 0 to 1: mean {mean}, std {std}.\n"
    if said.training.formation is not None:
        parts = said.training.formation
        how = "by their cosine spectrum" if said.training.enlarging == "cosine" else "bilinearly"
        yield f"Every image holds {parts} x {parts} films, which networks see one by one, enlarged {how}.\n"
    if said.training.class_offsets is not None:
        yield f"{lean(said.training)}\n"
    yield f"\n## Terms of use\n\n{_use(said.terms)}\n"


def what_images(made: Provenance) -> str:
    """What one of the images is called: not synthetic where it may be a real one."""
    return "image" if made.leaks_real_images else "synthetic image"


def lean(training: Training) -> str:
    """What networks trained on the images need besides them, or nothing."""
    if training.class_offsets is None:
        return ""
    kind, offsets = training.network, list(training.class_offsets)
    return (
        f"Networks of the kind that they were made with ({kind.architecture}, width {kind.width}, depth {kind.depth}), "
        f"trained on these images alone, add {offsets} to their logits, in order of label."
    )


def in_a_sentence(terms: Terms) -> str:
    """The terms in short, for a terminal."""
    parts = [_use(terms), "May be passed on." if terms.redistribution else "Not to be passed on."]
    if terms.ethics_approval:
        parts.append("Needs an ethics approval.")
    if terms.expires is not None:
        parts.append(f"Until {terms.expires}.")
    return " ".join([*parts, "Nobody may be looked for in them."])


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|&!~])", r"\\\1", text)


def agreement(terms: Terms) -> str:
    """The terms in words, as numbered clauses."""
    contact = "the people who gave you this package" if terms.contact is None else escaped(terms.contact)
    clauses = [
        f"**Use.** {_use(terms)}",
        "**Nobody is looked for.** Nobody may try to find, recognize or contact a person in these images, or to "
        f"reconstruct a real image from them. Whoever believes to have recognized somebody tells {contact} and nobody "
        "else.",
        "**Passing on.** They may be passed on, whole, signed as they are and under these terms."
        if terms.redistribution
        else "**Passing on.** They may not be passed on. Networks trained on them may be used and published.",
        "**Ethics.** An ethics committee has to approve of the use before it begins."
        if terms.ethics_approval
        else "**Ethics.** These terms ask for no approval; your own institution's rules hold.",
        "**Not for diagnosis.** Neither these images nor networks trained on them alone are medical devices.",
        f"**End.** They may be used until {terms.expires}, included; then every copy is deleted."
        if terms.expires
        else "**End.** These terms name no last day.",
        f"**Questions** go to {contact}.",
    ]
    numbered = "".join(f"{number}. {clause}\n" for number, clause in enumerate(clauses, 1))
    return (
        "# Terms of use\n\nWhoever opens this package accepts them. The manifest states the same for programs, under "
        f"`terms`.\n\n{numbered}"
    )


def _use(terms: Terms) -> str:
    return f"{_USES[terms.use][0]} {'Also' if terms.commercial else 'Not'} for profit."


def _conditions(terms: Terms) -> list[dict[str, str]]:
    """The terms as terms of the Data Use Ontology."""
    _, code, name = _USES[terms.use]
    codes = {code: name}
    if not terms.commercial:
        codes["0000046"] = "non-commercial use only"
    if terms.ethics_approval:
        codes["0000021"] = "ethics approval required"
    if terms.expires is not None:
        codes["0000025"] = f"time limit on use: {terms.expires}"
    return [
        {"@type": "DefinedTerm", "name": name, "termCode": f"DUO_{code}", "url": f"duo:{code}"}
        for code, name in codes.items()
    ]


def _collection(made: Provenance) -> str:
    """How the images came about; of those that may show patients nothing is claimed."""
    of_nobody = "" if made.leaks_real_images else " No image was taken of a patient."
    return f"Made by {made.method}, begun from {made.start}.{of_nobody}"


def _croissant(said: Manifest, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The description that catalogues read."""
    made = said.provenance
    holder = said.terms.contact or "The holder of the images, who is named where the package is signed"
    fingerprint = made.data_fingerprint
    derived = {"@id": f"urn:sha256:{fingerprint}"} if fingerprint else {"@type": "prov:Entity"}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": said.name,
        "description": f"{said.images.count} {what_images(made)}s of {len(said.classes)} classes. {made.privacy}",
        "url": f"urn:sha256:{digest(files[tensors.PATH])}",
        "license": AGREEMENT,
        "creator": {"@type": "sc:Organization", "name": holder},
        "usageInfo": _conditions(said.terms),
        "isLiveDataset": False,
        "rai:dataCollection": _collection(made),
        "rai:personalSensitiveInformation": LEAKS if made.leaks_real_images else made.privacy,
        "rai:dataUseCases": "Training of classifiers. Not for diagnosis from the images themselves.",
        "prov:wasDerivedFrom": derived | {"prov:label": "a private collection of labelled medical images"},
        "prov:wasGeneratedBy": {"@type": "prov:Activity", "prov:label": made.method},
        "distribution": [
            _file(tensors.PATH, "application/octet-stream", files),
            _file(medmnist.PATH, "application/x-npz", files),
            _file(previews.TABLE, "text/csv", files),
            {
                "@type": "cr:FileSet",
                "@id": "pictures",
                "name": "pictures",
                "encodingFormat": "image/png",
                "includes": f"{previews.FOLDER}/*.png",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "classes",
                "name": "classes",
                "dataType": "sc:Enumeration",
                "key": {"@id": "classes/name"},
                "field": [{"@type": "cr:Field", "@id": "classes/name", "name": "name", "dataType": "sc:Text"}],
                "data": [{"classes/name": name} for name in said.classes],
            },
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "field": [
                    _column("file_name", "sc:Text"),
                    _column("label", "cr:Label") | {"references": {"field": {"@id": "classes/name"}}},
                ],
            },
        ],
    }


def _file(path: str, encoding: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{len(files[path])} B",
        "encodingFormat": encoding,
        "sha256": digest(files[path]),
    }


def _column(name: str, kind: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"images/{name}",
        "name": name,
        "dataType": ["sc:Text", kind] if kind != "sc:Text" else kind,
        "source": {"fileObject": {"@id": previews.TABLE}, "extract": {"column": name}},
    }


_OWN_WORDS = (
    "annotation arrayShape citeAs column containedIn equivalentProperty excludes extract field fileObject fileProperty "
    "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField readLines recordSet references regex "
    "sdVersion separator source subField transform unArchive value"
)
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "duo": "http://purl.obolibrary.org/obo/DUO_",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{word: f"cr:{word}" for word in _OWN_WORDS.split()},
}
