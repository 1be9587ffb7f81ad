"""Plain words for names and numbers, shared by the page and the terminal.

A reader of a report did not write the code: `full-balanced` means nothing at a board meeting. A number that was not
measured has no words here, so it cannot be shown.
"""

from collections.abc import Sequence

from medistill.evidence import Compared, Difference, Figure, Help, Protocol, Row, Scenario, Utility, Worth

_ROWS = {
    "majority": "always the commonest class",
    "random": "random real images",
    "distilled": "distilled images",
    "distilled-hard": "distilled images, hard labels",
    "distilled-and-own": "distilled images and own ones",
    "full-natural": "all real images, natural sampling",
    "full-balanced": "all real images, balanced sampling",
    "full": "all real images",
    "scratch": "few real images, from scratch",
    "herding": "real images chosen by herding",
    "k-center": "real images chosen by k-center",
    "byol": "BYOL, fine-tuned",
    "byol-linear": "BYOL, linear probe",
    "simsiam": "SimSiam, fine-tuned",
    "simsiam-linear": "SimSiam, linear probe",
    "skd": "SKD, fine-tuned",
    "skd-linear": "SKD, linear probe",
    "mae": "MAE (ViT), fine-tuned",
    "mae-linear": "MAE (ViT), linear probe",
    "transfer": "transfer, fine-tuned",
    "transfer-linear": "transfer, linear probe",
    "soft-label": "soft-label distillation",
    "dm": "distribution matching (DM)",
    "dsa": "gradient matching (DSA)",
    "mtt": "trajectory matching (MTT)",
    "pruned": "pruned trajectory matching",
}
_NOTES = {"natural images, CIFAR-10": "natural images (CIFAR-10)"}
"""What rows say in brackets, where print spells it otherwise: with brackets of its own it cannot stand in brackets."""

_PROTOCOLS = {"budget": "the few", "unlabelled": "all, unlabelled", "full": "all"}
_HELPS: dict[Help, str] = {
    "alone": "own images alone",
    "package": "A's package",
    "packages": "A's and C's packages",
    "pooled": "A's and C's real images",
    "federated": "federation with A and C",
}
_SCENARIOS: dict[Scenario, str] = {
    "natural": "every hospital sees every class",
    "skewed": "A and C mostly see different classes",
    "shifted": "B's images are of another kind",
}
_ARCHITECTURES = {
    "convnet": "ConvNet",
    "resnet18": "ResNet-18",
    "resnet18bn": "ResNet-18 with batch norm",
    "vgg11": "VGG-11",
    "vit": "ViT",
    "none": "\N{EN DASH}",
}
_CEILINGS = ("full", "full-balanced", "full-natural")


def plain_name(row_name: str) -> str:
    """What a row of the evidence stands for: `distilled-resnet18` is "distilled images (ResNet-18)".

    What stands in brackets stays there, but for `_NOTES`; a name that nobody has put in words yet comes back as it is.
    """
    name, bracket, rest = row_name.partition(" (")
    spelled = _NOTES.get(rest.removesuffix(")"))
    note = f", from {spelled}" if spelled else f"{bracket}{rest}"
    if name in _ROWS:
        return f"{_ROWS[name]}{note}"
    kind, _, architecture = name.rpartition("-")
    if kind in _ROWS:
        return f"{_ROWS[kind]} ({architecture_name(architecture)}){note}"
    return row_name


def method_of(row_name: str) -> str:
    """The method of a row, without the network and the remark that its name may have: `mtt-vit` is "mtt"."""
    name = row_name.partition(" (")[0]
    method, _, network = name.rpartition("-")
    return method if network in _ARCHITECTURES else name


def remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader of a comparison has to know of some of its methods, in whole sentences."""
    skd = "SKD is our reading of a paper whose equations we could not read (Li et al., ICASSP 2022, arXiv 2206.03009)."
    return [skd] if any(row.name.startswith("skd") for row in rows) else []


def protocol_name(protocol: Protocol | None) -> str:
    """Which images a row's networks may have seen."""
    return _PROTOCOLS[protocol] if protocol else ""


def row_name(row: Compared) -> str:
    """A row's method, apart from the same method of the other protocol: "BYOL, fine-tuned · all, unlabelled"."""
    seen = f" \N{MIDDLE DOT} {protocol_name(row.protocol)}" if row.protocol == "unlabelled" else ""
    return plain_name(row.name) + seen


def images_seen(row: Compared) -> str:
    """Which images the networks of a row have seen; those of transfer saw first what the row's name tells."""
    seen = protocol_name(row.protocol)
    return f"others, then {seen}" if row.name.startswith("transfer") else seen


def architecture_name(architecture: str) -> str:
    """An architecture as it is spelled in print; a dash where no network was needed."""
    return _ARCHITECTURES.get(architecture, architecture)


def help_name(help_: Help, rounds: int | None = None) -> str:
    """What a small hospital is helped with: "federation with A and C, 10 rounds"."""
    return _HELPS[help_] if rounds is None else f"{_HELPS[help_]}, {counted(rounds, 'round')}"


def scenario_name(scenario: Scenario) -> str:
    """How the images of a study lie."""
    return _SCENARIOS[scenario]


def worth_said(worth: Worth | None) -> str:
    """How many own images a class something is worth, with its interval: "34 (22 to more than 50)"."""
    if worth is None:
        return ""
    images, low, high = (worth_number(value, worth) for value in (worth.images, worth.low, worth.high))
    return f"{images} ({low} to {high})"


def worth_number(value: float, worth: Worth) -> str:
    """A number of own images, or that it is more than anybody tried."""
    return f"more than {worth.most}" if value >= worth.most else f"{value:.0f}"


def percent(figure: Figure) -> str:
    """A figure in percent without the sign, "68.3 ± 1.2"; one network has no spread, so it shows none."""
    return str(figure) if figure.n > 1 else f"{100 * figure.mean:.1f}"


def share(part: float) -> str:
    """A part of a whole in percent, "0.24 %", "37 %", "1,250 %": two digits, or as many as stand before the point."""
    value = 100 * part
    return f"{value:.2g} %" if value < 9.95 else f"{value:,.0f} %"


def points(apart: Difference | None) -> str:
    """How far one row lies above another in percentage points, "-2.8 to +7.1"; empty where none was held against."""
    if apart is None:
        return ""
    low, high = (round(100 * end, 1) + 0.0 for end in (apart.low, apart.high))  # no "-0.0"
    return f"{low:+.1f} to {high:+.1f}"


def ceiling(utility: Utility) -> Row | None:
    """The row trained on all real images: the better kind of sampling where both were tried."""
    return next((row for name in _CEILINGS if (row := utility.row(name))), None)


def headline(utility: Utility) -> str:
    """The evidence in one sentence; it leaves out what was not measured.

    For instance: "40 synthetic images: networks trained on them reach 68.3 ± 1.2 % balanced accuracy on validation;
    trained on 40 random real images 54.1 ± 2.0 %, on all 2,000 real images 77.0 ± 0.9 %."
    """
    distilled = utility.row("distilled")
    if distilled is None:
        return "No network trained on the synthetic images has been judged yet."
    said = (
        f"{counted(distilled.images, 'synthetic image')}: networks trained on them reach "
        f"{percent(distilled.balanced_accuracy)} % balanced accuracy on {utility.split}"
    )
    beside = []
    if random := utility.row("random"):
        images = counted(random.images, "random real image")
        beside.append(f"on {images} {percent(random.balanced_accuracy)} %")
    if full := ceiling(utility):
        beside.append(f"on all {counted(full.images, 'real image')} {percent(full.balanced_accuracy)} %")
    return said + ("; trained " + ", ".join(beside) if beside else "") + "."


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "2,000 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size(count_bytes: int) -> str:
    """Bytes in the unit that suits them, decimal: "184.3 kB"."""
    value = float(count_bytes)
    for unit in ("bytes", "kB", "MB"):
        if value < 999.95:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def duration(duration_s: float) -> str:
    """A wall time in the unit that suits it: "40 ms", "12.3 s", "2 min 5 s", "1 h 23 min"."""
    if 0 < duration_s < 0.0995:
        return f"{max(1, round(1000 * duration_s))} ms"
    if duration_s < 59.95:
        return f"{duration_s:.1f} s"
    minutes, seconds = divmod(round(duration_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
