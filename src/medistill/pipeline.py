"""One recipe, from real images to a sealed package.

Every stage is a function of a `Run` and leaves its work in the run's folders, so each can be called alone, and calling
it again continues or repeats nothing. What a stage makes lies under a name that hashes the images and the settings that
decide it: two recipes never share a file by accident, and share it where they may.

    OUT/work/buffer-KEY/     expert trajectories          (images, network, augmentation, teachers)
    OUT/work/networks/       evaluation networks          (a hash each)
    OUT/work/distill-KEY/    checkpoint                   (images, all that decides the set)
    OUT/work/run-KEY/        utility                      (images, whole recipe)
    OUT/NAME.medistill, utility.json, report.html, contact_sheet.png      the latest finished run
"""

import math
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from medistill import __version__, files
from medistill.buffer import Buffer
from medistill.distill import Distilled, distill, finished
from medistill.errors import RecipeError, SourceError
from medistill.evaluate import Bench, evaluate, majority, standard_arms, synthetic_arm
from medistill.evidence import Figure, Utility
from medistill.files import append_line, read_json, storage_errors, write_json, write_whole
from medistill.images import LabelledImages, Splits
from medistill.jobs import Progress, Silence, available_cores
from medistill.networks import can_compile
from medistill.package import NARROW, Package, Provenance, Terms, Training, Transform, check_class_names, pack
from medistill.recipe import (
    AugmentSettings,
    Device,
    Encoding,
    EvaluateSettings,
    NetworkSettings,
    Objective,
    Recipe,
    recipe_from,
)
from medistill.report.html import render_report
from medistill.report.sheet import package_sheet
from medistill.sources import read_part, read_source
from medistill.synthetic import refuse_endless_sets, refuse_small_classes
from medistill.teachers import train_teachers
from medistill.usage import recorded_stages, timed

_SMALLEST_FIRST: tuple[Encoding, ...] = ("uint8", "float16", "float32")
METHODS: dict[Objective, str] = {
    "mtt": "trajectory matching",
    "pruned": "pruned trajectory matching",
    "soft-label": "soft-label distillation",
    "dm": "distribution matching",
    "dsa": "gradient matching with siamese augmentation",
}


@dataclass(frozen=True)
class Run:
    """A recipe with its images in memory and its place on disk; `open_run` makes one.

    Attributes:
        recipe: resolved: image size and what it left open of the machine are stated.
        splits: the real images in the recipe's shape.
        transform: how they are normalized, from the training images.
        fingerprint: SHA-256 of the images.
        test_identity: SHA-256 that names the test split in the record of its readings.
        out: the folder that the user named.
    """

    recipe: Recipe
    splits: Splits
    transform: Transform
    fingerprint: str
    test_identity: str
    out: Path

    @property
    def folder(self) -> Path:
        """Where this recipe on these images keeps its evidence."""
        return self.out / "work" / f"run-{self._key(self.recipe.digest())}"

    @property
    def distillation(self) -> Path:
        """Where the distillation keeps its checkpoint; shared by recipes that differ in later evaluation alone."""
        return self.out / "work" / f"distill-{self._key(self.recipe.distillation_digest())}"

    @property
    def clocks(self) -> dict[str, Path]:
        """Where each stage records what it takes: beside what it makes, which other recipes may share."""
        folders = {"teachers": self.buffer.folder, "distill": self.distillation, "evaluate": self.folder}
        if not self.recipe.distill.follows_teachers:
            del folders["teachers"]
        return {stage: folder / "stages.json" for stage, folder in folders.items()}

    @property
    def buffer(self) -> Buffer:
        """The teachers' trajectories; shared by recipes that differ in distillation alone."""
        digest = self.recipe.digest("source", "network", "augment", "teachers")
        key = self._key(f"{digest} {self.recipe.machine.arithmetic}")
        teachers = self.recipe.teachers.count
        epoch = self.recipe.last_teacher_epoch
        return Buffer(self.out / "work" / f"buffer-{key}-{epoch}", teachers, epoch)

    @property
    def processes(self) -> int:
        """How many independent trainings run at once."""
        return self.recipe.machine.processes or (1 if self.recipe.machine.place == "cuda" else available_cores())

    def with_recipe(self, recipe: Recipe) -> "Run":
        """The same images and place with other settings than those that decide how images are read."""
        return replace(self, recipe=recipe)

    def with_images(self, splits: Splits) -> "Run":
        """The same recipe and place with other images, of the same shape."""
        return replace(
            self,
            splits=splits,
            transform=splits.train.transform(),
            fingerprint=splits.fingerprint(),
            test_identity=_identity(splits.test),
        )

    def _key(self, digest: str) -> str:
        made_by = f"medistill {__version__} torch {torch.__version__} {digest}"
        return f"{self.fingerprint[:8]}-{files.digest(made_by.encode())[:12]}"


@dataclass(frozen=True)
class Products:
    """Where a finished run's results are."""

    package: Path
    report: Path
    utility: Path
    contact_sheet: Path


def open_run(recipe: Recipe, out: Path) -> Run:
    """Read a recipe's images and state what the recipe left to the machine.

    Raises:
        SourceError: the images cannot be read as described, or those to judge on are of one class.
        PackageError: a class has a name that no package could carry.
        RecipeError: a class has fewer images than the recipe asks for, the set would be too large for a package, or
            there is no GPU where it asks for one.
    """
    splits = read_source(recipe.source)
    check_class_names(splits.train.class_names)
    refuse_small_classes(recipe.distill, splits.train)
    refuse_endless_sets(recipe.distill, splits.train)
    _refuse_one_class(splits)
    size = splits.train.pixels.shape[-1]
    sections = {
        "source": recipe.source.model_copy(update={"image_size": size}),
        "network": recipe.network.for_images(size),
        "distill": recipe.distill.for_images(size),
    }
    device: Device = recipe.machine.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("machine.device = 'cuda', but torch finds no GPU here. Leave it out, or say 'cpu'.")
    left_open = {"device": device, "threads": available_cores(), "compiles": can_compile(device)}
    stated = {"machine": left_open | recipe.machine.model_dump(exclude_none=True)}
    # What the recipe did not say stays unsaid: another number of images a class may ask for another value.
    stated |= {name: section.model_dump(exclude_unset=True) for name, section in sections.items()}
    resolved = recipe_from(recipe.model_dump(exclude_unset=True) | stated)
    return Run(resolved, splits, splits.train.transform(), splits.fingerprint(), _identity(splits.test), out)


def _refuse_one_class(splits: Splits) -> None:
    """Hours later no area under a curve could be told of such images."""
    for name, images in splits.parts.items():
        found = [label for label, count in zip(images.class_names, images.counts, strict=True) if count]
        if len(found) < 2:
            raise SourceError(
                f"Found images of {' and '.join(found) or 'no class'} alone in the {name} split; expected two classes "
                "or more. Move images of others there, or remove the split to have one cut for you."
            )


def run(opened: Run, progress: Progress, final: bool = False, terms: Terms = NARROW) -> Products:
    """The whole path: teachers, distillation, evaluation, package; continues where an earlier call stopped.

    Args:
        opened: a recipe with its images.
        progress: told of everything.
        final: judge on the test split, which is recorded, instead of on validation.
        terms: what a receiver may do with the package.

    Raises:
        MedistillError: see the stages.
    """
    for note in opened.splits.notes:
        progress.say(note)
    if opened.recipe.distill.follows_teachers:
        teach(opened, progress)
    distill_images(opened, progress)
    judge(opened, progress, final)
    return seal(opened, terms)


def teach(opened: Run, progress: Progress) -> Buffer:
    """Stage 1: train the teachers and record their trajectories."""
    with timed(opened.clocks["teachers"], "teachers"):
        return train_teachers(
            opened.recipe,
            opened.splits.train,
            opened.transform,
            opened.buffer.folder,
            opened.processes,
            progress,
        )


def distill_images(opened: Run, progress: Progress) -> Distilled:
    """Stage 2: distill the synthetic set.

    Raises:
        RecipeError: teachers are missing.
    """
    missing = opened.buffer.missing()
    if missing and opened.recipe.distill.follows_teachers:
        raise RecipeError(
            f"Found {opened.buffer.teachers - len(missing)} of {opened.buffer.teachers} teachers for this recipe and "
            "these images. Train them first: medistill teach, or let medistill run do every stage."
        )
    with timed(opened.clocks["distill"], "distill"):
        torch.set_num_threads(opened.recipe.machine.threads or available_cores())
        return distill(
            opened.recipe,
            opened.splits,
            opened.transform,
            opened.buffer,
            opened.distillation,
            opened.processes,
            progress,
        )


def judge(opened: Run, progress: Progress, final: bool = False) -> Utility:
    """Stage 3: judge the set beside random and all real images, on validation or, with `final`, on the test split.

    Every reading of a test split is recorded in OUT beside the recipe that read it, and counted in the evidence.

    Raises:
        RecipeError: the set is not distilled yet.
    """
    recipe, splits = opened.recipe, opened.splits
    distilled = _distilled(opened)
    judged, split = images_to_judge(opened, final)
    bench = bench_of(opened)
    with timed(opened.clocks["evaluate"], "evaluate"):
        encoding = encoding_of(opened, distilled, progress)
        arms = standard_arms(recipe, splits.train, distilled.synthetic.stored_as(encoding))
        rows = [majority(splits.train, judged, split), *evaluate(bench, arms, judged, split, progress)]
    notes = [*splits.notes]
    if recipe.distill.start == "real":
        notes.append("Distillation began with real films: the set may show real patients. Not a headline result.")
    if not final:
        notes.append("Rates and the set were selected on validation, so these figures flatter; judge with --final.")
    utility = Utility(
        split=split,
        judged_images=len(judged),
        selection="learning rates and the distilled set, by balanced accuracy on validation",
        test_reads=test_readings(opened),
        data_fingerprint=opened.fingerprint,
        recipe_digest=recipe.digest(),
        software=software(),
        notes=tuple(notes),
        rows=tuple(rows),
    )
    write_json(opened.folder / "utility.json", utility.model_dump(mode="json"))
    return utility


def encoding_of(opened: Run, distilled: Distilled, progress: Progress) -> Encoding:
    """How a package stores the set's pixels: as the recipe says or, where that is "measured", in the smallest encoding
    whose networks' mean on validation lies at most a standard error below that of float32's.

    What was measured is kept in `encodings.json` beside the evidence.
    """
    asked, measured = opened.recipe.distill.encoding, opened.folder / "encodings.json"
    if asked != "measured":
        return asked
    if not measured.exists():
        arms = [
            replace(synthetic_arm(opened.recipe, distilled.synthetic.stored_as(encoding)), name=f"distilled-{encoding}")
            for encoding in _SMALLEST_FIRST
        ]
        rows = evaluate(bench_of(opened), arms, opened.splits.validation, "validation", progress)
        found = {
            encoding: row.balanced_accuracy.model_dump() for encoding, row in zip(_SMALLEST_FIRST, rows, strict=True)
        }
        write_json(measured, found)
    figures = {encoding: Figure.model_validate(figure) for encoding, figure in read_json(measured).items()}
    exact = figures["float32"]
    enough = exact.mean - exact.sd / math.sqrt(exact.n)
    return next(encoding for encoding in _SMALLEST_FIRST if figures[encoding].mean >= enough)


def bench_of(opened: Run) -> Bench:
    """Where a run's networks are compared, and kept."""
    networks = opened.out / "work" / "networks"
    return Bench(opened.recipe, opened.splits.validation, networks, opened.processes)


def images_to_judge(opened: Run, final: bool, asked: str = "") -> tuple[LabelledImages, str]:
    """The validation images or, with `final`, those of the test split, which is recorded; and what they are called.

    A question that was asked before, and most likely interrupted, hears the same answer and is recorded once.

    Args:
        opened: whose images, and the recipe that asks.
        final: read the test split.
        asked: what is asked of it besides, where that is more than the recipe's own set.
    """
    if not final:
        return opened.splits.validation, split_to_judge(final)
    question = f"{opened.folder.name} {asked}".rstrip()  # the folder's name tells images, settings and versions
    if question not in _lines(_test_reads(opened)):
        append_line(_test_reads(opened), question)
    return opened.splits.test, split_to_judge(final)


def split_to_judge(final: bool) -> str:
    """What the images are called that figures are reported on."""
    return "test" if final else "validation"


def test_readings(opened: Run) -> int:
    """How many questions were asked of the test split in this folder."""
    return len(_lines(_test_reads(opened)))


def seal(opened: Run, terms: Terms = NARROW) -> Products:
    """Stage 4: seal the set with its evidence in a package, and write the report and the contact sheet beside it.

    Raises:
        RecipeError: the set is not distilled or not judged yet.
    """
    recipe, distilled = opened.recipe, _distilled(opened)
    if not (opened.folder / "utility.json").exists():
        raise RecipeError("This set is not judged yet. Do so first: medistill evaluate, or let medistill run do it.")
    utility = Utility.model_validate(read_json(opened.folder / "utility.json"))
    products = Products(
        package=opened.out / f"{recipe.name}.medistill",
        report=opened.out / "report.html",
        utility=opened.out / "utility.json",
        contact_sheet=opened.out / "contact_sheet.png",
    )
    row = utility.row("distilled")
    assert row is not None
    assert row.rate is not None
    encoding = encoding_of(opened, distilled, Silence())
    package = seal_set(opened, distilled, row.rate, products.package, encoding, utility, terms)
    sheet = package_sheet(package, recipe.name)
    counts = dict(zip(opened.splits.train.class_names, opened.splits.train.counts.tolist(), strict=True))
    page = render_report(
        title=recipe.name,
        utility=utility,
        provenance=package.manifest.provenance,
        class_counts=counts,
        sheet_png=sheet,
        log=[asdict(outcome) for outcome in distilled.log],
        selected_step=distilled.selected_step,
        recipe_toml=recipe.to_toml(),
        package_bytes=products.package.stat().st_size,
        stages=[
            (stage, took["seconds"], int(took["peak_bytes"]))
            for stage, clock in opened.clocks.items()
            if (took := recorded_stages(clock).get(stage)) is not None
        ],
    )
    write_json(products.utility, utility.model_dump(mode="json"))
    write_whole(products.contact_sheet, sheet)
    write_whole(products.report, page.encode())
    return products


def seal_images(
    source: str, path: Path, size: int | None, channels: int, rate: float, terms: Terms = NARROW
) -> Package:
    """Seal any labelled images as a set "not distilled here": a control, or another method's result.

    Args:
        source: where the images are; `path#split` takes one split, else the training split where there are splits.
        path: the package to write.
        size: height and width in pixels, or None to keep what the images have.
        channels: 1 or 3.
        rate: the learning rate that the package asks for.
        terms: what a receiver may do with it.

    Raises:
        SourceError: the images cannot be read.
        PackageError: they cannot be sealed.
    """
    images = read_part(source, size, channels, default="train")
    settings, side = EvaluateSettings(), images.pixels.shape[-1]
    network = NetworkSettings().for_images(side)
    return pack(
        path,
        name=path.stem,
        images=np.divide(images.pixels, 255, dtype=np.float32),
        labels=images.labels,
        inner_rate=rate,
        class_names=images.class_names,
        transform=images.transform(),
        training=Training(
            network=network,
            steps=settings.steps,
            batch_size=settings.batch_size,
            rate=rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            augment=AugmentSettings(),
            inner_rate_learned=False,
        ),
        provenance=Provenance(
            method="not distilled here", start="unknown", leaks_real_images=True, software=software()
        ),
        terms=terms,
    )


def seal_set(
    opened: Run,
    distilled: Distilled,
    rate: float,
    path: Path,
    encoding: Encoding,
    utility: Utility | None = None,
    terms: Terms = NARROW,
) -> Package:
    """Seal a distilled set alone: what the last stage does for the recipe's own.

    Args:
        opened: the run that distilled it.
        distilled: the set.
        rate: the learning rate that a receiver should train with.
        path: the package to write.
        encoding: how it stores a pixel.
        utility: what was measured, if anything was.
        terms: what a receiver may do with it.

    Raises:
        PackageError: the set cannot be sealed.
        StorageError: the disk refused.
    """
    recipe, synthetic, train = opened.recipe, distilled.synthetic, opened.splits.train
    settings = recipe.evaluate
    return pack(
        path,
        name=recipe.name,
        images=synthetic.intensities(),
        labels=synthetic.labels(),
        inner_rate=synthetic.inner_rate,
        class_names=synthetic.class_names,
        transform=synthetic.transform,
        training=Training(
            network=recipe.network,
            steps=settings.steps,
            batch_size=settings.batch_size,
            rate=rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            schedule=settings.schedule,
            augment=recipe.augment,
            inner_rate_learned=recipe.distill.learns_rate,
            formation=synthetic.formation if synthetic.formation > 1 else None,
            enlarging=synthetic.enlarging if synthetic.formation > 1 else None,
            class_offsets=synthetic.offsets or None,
        ),
        provenance=Provenance(
            method=METHODS[recipe.distill.objective],
            start=recipe.distill.start,
            leaks_real_images=recipe.distill.start == "real",
            data_fingerprint=opened.fingerprint,
            recipe_digest=recipe.digest(),
            software=software(),
        ),
        terms=terms,
        encoding=encoding,
        class_prior=dict(zip(train.class_names, (train.counts / len(train)).tolist(), strict=True)),
        recipe_toml=recipe.to_toml(),
        utility=utility,
    )


def _distilled(opened: Run) -> Distilled:
    distilled = finished(opened.recipe, opened.splits, opened.transform, opened.distillation)
    if distilled is None:
        raise RecipeError("This recipe's set is not distilled yet. Do so first: medistill distill, or medistill run.")
    return distilled


def software() -> dict[str, str]:
    """The versions that decide results."""
    others = {name: version(name) for name in ("torch", "numpy", "scikit-learn")}
    return {"python": platform.python_version(), "medistill": __version__} | others


def machine(opened: Run) -> str:
    """What computes a run, as far as it decides the last digits: torch, processor and precision."""
    settings = opened.recipe.machine
    processor = torch.cuda.get_device_name() if settings.place == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, {processor}, {settings.precision}"


def _test_reads(opened: Run) -> Path:
    return opened.out / "work" / f"test-reads-{opened.test_identity[:12]}.txt"


def _identity(test: LabelledImages) -> str:
    """A digest of labels, patients and classes: another image size or validation cut does not make a new test."""
    groups = b"" if test.groups is None else "\0".join(test.groups.tolist()).encode()
    return files.digest(test.labels.astype("<i8").tobytes() + groups + "\0".join(test.class_names).encode())


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    with storage_errors(path):
        return path.read_text(encoding="utf-8").splitlines()
