"""The page on one package, for the receiver who decides whether to use it."""

from medistill.package import Package, fingerprint
from medistill.package.documents import in_a_sentence, what_images
from medistill.report.page import render
from medistill.report.sheet import package_sheet


def render_package(package: Package, signed_by: str | None, trusted: bool) -> str:
    """One HTML page that needs nothing but itself.

    Args:
        package: an opened package.
        signed_by: whom to name as its signer: the receiver's own name for a trusted key, else what the signer calls
            themselves; None where nobody signed it.
        trusted: whether the receiver trusts that key.
    """
    said = package.manifest
    values = {
        "title": said.name,
        "manifest": said,
        "form": said.images,
        "training": said.training,
        "provenance": said.provenance,
        "what": what_images(said.provenance),
        "terms": in_a_sentence(said.terms),
        "signed_by": signed_by,
        "signed_on": package.signed_on,
        "trusted": trusted,
        "fingerprint": None if said.signer is None else fingerprint(said.signer.public_key),
        "sheet": package_sheet(package, said.name),
        "utility": package.utility,
        "distilled": None if package.utility is None else package.utility.row("distilled"),
        "digest": package.digest,
    }
    return render("package.html.j2", values)
