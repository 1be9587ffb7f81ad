"""Every setting of one run: frozen, validated, written as TOML.

A recipe decides everything that randomness decides. `seed_for("teacher/3")` is a pure hash, so two machines that
hold the same recipe draw the same numbers, whatever they did before. Only `source.path`, which names a place on
the holder's disk, is left out of what a recipe *is*: it enters neither digests nor packages.
"""

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medistill.errors import RecipeError

Sampling = Literal["natural", "balanced"]
Start = Literal["noise", "class-noise", "class-mean", "real"]
Similarity = Literal["unsigned", "signed", "displacement", "shuffled", "shuffled-displacement", "easy"]
Architecture = Literal["convnet", "resnet18", "resnet18bn", "vgg11", "vit"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
Encoding = Literal["float32", "float16", "uint8"]
Enlarging = Literal["bilinear", "cosine"]
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]
Objective = Literal["mtt", "pruned", "soft-label", "dm", "dsa"]
FOLLOW_TEACHERS: frozenset[Objective] = frozenset({"mtt", "pruned"})
COMPARE_CLASSES: frozenset[Objective] = frozenset({"dm", "dsa"})
"""The objectives that hold the real images of a class beside its synthetic ones: only pixels follow from that."""
TableRow = Literal["random", "distilled", "full-natural", "full-balanced"]

_FIRST_WAY = 0.4  # of all student steps together: ten of 0.04 were measured first


class Section(BaseModel):
    """One table of a recipe: frozen, and strict about names and numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceSettings(Section):
    """Which real images, and in what shape the networks see them."""

    path: str | None = None
    image_size: int | None = Field(None, ge=8, le=1024)
    channels: Literal[1, 3] = 1
    validation_fraction: float = Field(0.1, gt=0, lt=0.5)
    test_fraction: float = Field(0.2, gt=0, lt=0.5)


class NetworkSettings(Section):
    """The network that teachers and students share; the published ConvNet pads grey images by 3 in its first layer.

    A `depth` that is not given follows from the size of the images when they are opened, see `depth_for`.
    """

    architecture: Architecture = "convnet"
    width: int = Field(128, ge=4, le=1024)
    depth: int = Field(3, ge=1, le=8)
    first_padding: Literal[1, 3] = 1

    @staticmethod
    def depth_for(size: int) -> int:
        """The depth that leaves maps of about 4 pixels a side: 3 for 28 and 32 px, 4 for 64, 5 for 112, 6 for 224."""
        return max(1, round(math.log2(size)) - 2)

    def for_images(self, size: int) -> "NetworkSettings":
        """The same with the depth that suits the size, where none was given."""
        return self if "depth" in self.model_fields_set else self.model_copy(update={"depth": self.depth_for(size)})


class AugmentSettings(Section):
    """How far differentiable augmentation may move an image; all zero switches it off.

    The same ranges serve synthetic and real images. `flip` mirrors left and right, which for a chest film moves the
    heart to the other side: leave it off wherever laterality means something.
    """

    rotate_degrees: float = Field(8.0, ge=0, le=180)
    scale: float = Field(0.1, ge=0, lt=1)
    shift: float = Field(0.08, ge=0, lt=1)
    brightness: float = Field(0.2, ge=0)
    contrast: float = Field(0.2, ge=0, lt=1)
    cutout: float = Field(0.0, ge=0, lt=1)
    flip: bool = False


class TeacherSettings(Section):
    """How the networks on the real images are trained and recorded.

    `average` records the exponential average of a teacher's parameters, with this decay a step, in place of the
    parameters: the noise of its batches, which no student can follow, then mostly leaves the trajectory.
    `logit_adjustment` adds so many times the logarithm of each class's share to the logits while a teacher learns: an
    imbalanced set then teaches balanced answers, and every image is seen equally often. `sharpness_radius` and
    `surrogate_gap` make teachers walk through flat regions (see `medistill.train.Optimization`).
    `also` names further architectures: teachers take turns, so the images are made for several networks at once.
    """

    count: int = Field(6, ge=1)
    also: tuple[Architecture, ...] = ()
    epochs: int = Field(12, ge=1)
    sampling: Sampling = "balanced"
    rate: float = Field(0.015, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    average: float = Field(0.985, ge=0, lt=1)
    logit_adjustment: float = Field(0.0, ge=0)
    sharpness_radius: float = Field(0.0, ge=0)
    surrogate_gap: float = Field(0.0, ge=0)
    batch_size: int = Field(64, ge=1)
    storage: Literal["differences", "full"] = "differences"

    @model_validator(mode="after")
    def _balance_once(self) -> Self:
        if self.logit_adjustment > 0 and self.sampling == "balanced":
            raise ValueError("logit_adjustment balances what balanced sampling has balanced: set sampling = 'natural'")
        if self.surrogate_gap > 0 and self.sharpness_radius == 0:
            raise ValueError("surrogate_gap needs a sharpness_radius above 0, for instance 0.05")
        return self


class DistillSettings(Section):
    """The outer loop, the inner loop and what is matched.

    The outer loop takes `outer_steps`, not said ten for each image of a class and 100 at least: with a hundred, sets of
    twenty had not learned all they could (docs/log.md). A student starts at an epoch from `min_start_epoch` to
    `max_start_epoch`, which in a recipe that does not say it is the last from which teachers go on for `expert_epochs`;
    with `window_steps`, the latter is reached after so many outer steps, in a straight line from
    `first_max_start_epoch`: easy stretches first. `similarity` says by what `pruned` keeps a parameter; `easy` reads
    not `threshold` but `easy_error`, which grows by `easy_growth` every `easy_growth_every` outer steps. `gradient =
    "tesla"` is the released approximation of the exact one, for comparison. `angle_weight` adds the shape of the
    trajectory to what is matched; `importance_rate` is the step size of the weights by which layers count in it, 0 for
    all alike.
    With `learn_labels`, each image's class probabilities are learned with its pixels; not said, they are where the
    objective can: not by `dm` and `dsa`, which compare class by class. `label_start` is where learned labels begin: at
    their class, or at what the teachers that are right say. A `formation` of f puts f x f films of a smaller side into
    each of the `ipc` images; `enlarging` says how networks see them at the full side, "cosine" as their lowest
    frequencies. `inner_rate` is the student's rate before it is learned; not said, all steps together lead equally far,
    whatever their number: twenty steps of the rate that suits ten ended farther off at 64 px than they had begun, and
    did not recover (docs/log.md). With a `smoothness` above 0 not pixels move but the cosines that images are made of,
    those of long waves farther (`canvas.py`): coarse things first, fine ones later; not said, it follows from the size
    of the images, see `for_images`. `ipc_power` gives classes images in proportion to that power of their share: 0 the
    same number each, 1 as they occur (see `images_of_each`). With `class_offsets`, the lean of networks that learn from
    the set is measured on training images and taken off: a number a class, which travels with the set and is added to
    their logits (`leaning.py`); not said, it is where the objective follows teachers.
    `encoding` is how a package stores a pixel; "measured" takes the smallest that costs no accuracy on validation.
    `real_batch` is how many real images an outer step sees where its objective follows no teacher: of each class, or
    for `soft-label` of all together, every class as often.
    """

    ipc: int = Field(10, ge=1)
    formation: int = Field(1, ge=1, le=8)
    enlarging: Enlarging = "bilinear"
    ipc_power: float = Field(0.0, ge=0, le=1)
    student_steps: int = Field(40, ge=1)
    expert_epochs: int = Field(3, ge=1)
    min_start_epoch: int = Field(0, ge=0)
    max_start_epoch: int = Field(9, ge=0)
    first_max_start_epoch: int = Field(0, ge=0)
    window_steps: int = Field(0, ge=0)
    outer_steps: int = Field(default_factory=lambda known: max(100, 10 * known["ipc"]), ge=0)
    objective: Objective = "pruned"
    gradient: Literal["exact", "tesla"] = "exact"
    threshold: float = Field(0.1, ge=0, le=1)
    similarity: Similarity = "unsigned"
    easy_error: float = Field(1e-10, gt=0)
    easy_growth: float = Field(1.3, ge=1)
    easy_growth_every: int = Field(500, ge=1)
    angle_weight: float = Field(0.0, ge=0)
    importance_rate: float = Field(0.0, ge=0)
    start: Start = "class-noise"
    images_per_mean: int = Field(64, ge=8)
    start_noise: float = Field(0.1, ge=0)
    batch_size: int | None = Field(None, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    image_rate: float = Field(0.1, gt=0)
    smoothness: float | None = Field(None, ge=0, le=4)
    image_momentum: float = Field(0.5, ge=0, lt=1)
    inner_rate: float = Field(default_factory=lambda known: _FIRST_WAY / known["student_steps"], gt=0)
    log_rate_step: float = Field(0.03, ge=0, le=0.5)
    learn_labels: bool | None = None
    label_start: Literal["class", "teachers"] = "class"
    label_rate: float = Field(0.2, gt=0)
    ema: float = Field(0.95, ge=0, lt=1)
    class_offsets: bool | None = None
    encoding: Encoding | Literal["measured"] = "float32"
    validate_every: int = Field(100, ge=1)
    validate_networks: int = Field(4, ge=1)
    validate_images: int = Field(1000, ge=1)
    real_batch: int = Field(128, ge=1)

    @property
    def follows_teachers(self) -> bool:
        """Whether trajectories of teachers are matched, so that there have to be teachers."""
        return self.objective in FOLLOW_TEACHERS

    @property
    def learns_rate(self) -> bool:
        """Whether the student's rate is learned with the images."""
        return self.objective not in COMPARE_CLASSES and self.log_rate_step > 0

    @property
    def student_way(self) -> float:
        """How far a student goes in one outer step: its rate times its steps."""
        return self.inner_rate * self.student_steps

    def for_images(self, size: int) -> "DistillSettings":
        """The same with the smoothness that suits the size, where none was given: 1 above 32 px, where it was worth
        points, and 0 up to there, where it was worth none (docs/log.md). Only for Adam, whose steps are equal: in plain
        descent, where the scale of a cosine counts twice, it was never tried."""
        if self.smoothness is not None:
            return self
        return self.model_copy(update={"smoothness": 1.0 if size > 32 and self.optimizer == "adam" else 0.0})

    @property
    def states_offsets(self) -> bool:
        """Whether the set says how its networks lean: as `class_offsets` says, else where trajectories are matched."""
        return self.follows_teachers if self.class_offsets is None else self.class_offsets

    @property
    def learns_labels(self) -> bool:
        """Whether labels move with the images: as `learn_labels` says, else wherever the objective can teach them."""
        return self.objective not in COMPARE_CLASSES if self.learn_labels is None else self.learn_labels

    @model_validator(mode="after")
    def _labels_can_be_learned(self) -> Self:
        if self.learn_labels and self.objective in COMPARE_CLASSES:
            raise ValueError(
                f"objective = {self.objective!r} compares images class by class, so labels stay hard: "
                "set learn_labels = false, or choose another objective"
            )
        if self.label_start == "teachers" and not (self.learns_labels and self.follows_teachers):
            raise ValueError(
                "label_start = 'teachers' needs learn_labels = true and an objective that follows teachers"
            )
        return self

    def images_of_each(self, counts: Sequence[int]) -> tuple[int, ...]:
        """How many synthetic images each class gets, at least 1, `ipc` on average.

        Args:
            counts: the training images of each class.
        """
        total = self.ipc * len(counts)
        weights = [count**self.ipc_power for count in counts]
        wanted = [1 + (total - len(counts)) * weight / sum(weights) for weight in weights]
        found = [int(share) for share in wanted]
        # What rounding down left over goes to those that lost most by it, the first of equals first.
        by_loss = sorted(range(len(counts)), key=lambda index: (found[index] - wanted[index], index))
        for index in by_loss[: total - sum(found)]:
            found[index] += 1
        return tuple(found)

    @model_validator(mode="after")
    def _epochs_are_in_order(self) -> Self:
        first = self.first_max_start_epoch if self.window_steps else self.max_start_epoch
        if not self.min_start_epoch <= first <= self.max_start_epoch:
            raise ValueError(
                "expected min_start_epoch <= first_max_start_epoch (with window_steps) <= max_start_epoch, found "
                f"{self.min_start_epoch}, {first}, {self.max_start_epoch}"
            )
        if self.angle_weight > 0 and min(self.student_steps, self.expert_epochs) < 2:
            raise ValueError("angle_weight needs a point on the way: student_steps and expert_epochs of 2 or more")
        return self


class PretrainSettings(Section):
    """How encoders learn without labels where the method is compared with self-supervision."""

    steps: int = Field(1500, ge=1)
    batch_size: int = Field(128, ge=2)
    rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)


class EvaluateSettings(Section):
    """The fair protocol: fresh networks, one rate search for everybody, selection on validation only."""

    networks: int = Field(5, ge=1)
    search_networks: int = Field(1, ge=1)
    rates: tuple[Annotated[float, Field(gt=0, le=1000)], ...] = Field((0.003, 0.01, 0.03), min_length=1)
    steps: int = Field(300, ge=1, le=10**9)
    full_epochs: int = Field(5, ge=1)
    batch_size: int = Field(128, ge=1, le=10**9)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, le=1000)
    schedule: Literal["constant", "cosine"] = "cosine"
    unseen: tuple[Architecture, ...] = ()
    rows: tuple[TableRow, ...] = ("random", "distilled", "full-natural", "full-balanced")

    @property
    def middle_rate(self) -> float:
        """Where one rate has to do: the middle one of the search, of two the larger."""
        return sorted(self.rates)[len(self.rates) // 2]

    @model_validator(mode="after")
    def _the_set_is_judged(self) -> Self:
        if "distilled" not in self.rows:
            raise ValueError("rows must hold 'distilled', which the others are there to be compared with")
        return self


class MachineSettings(Section):
    """What was chosen for the machine.

    `device` (a GPU is chosen among several by CUDA_VISIBLE_DEVICES), `threads` of the outer loop and `compiles` (the
    ConvNet's own derivatives, compiled) change the last bits of a result, `precision` (of convolutions) more than
    those; `processes`, `keep_mb` (activations that an outer step may keep instead of computing them again) and `graphs`
    (on a GPU, replay a ConvNet's derivatives as CUDA graphs) change nothing.
    """

    device: Device | None = None
    threads: int | None = Field(None, ge=1)
    compiles: bool | None = None
    precision: Precision = "float32"
    processes: int | None = Field(None, ge=1)
    keep_mb: int = Field(2048, ge=0)
    graphs: bool = False

    @model_validator(mode="after")
    def _precision_is_there(self) -> Self:
        if self.precision == "bfloat16" and self.compiles is False:
            raise ValueError("precision = 'bfloat16' needs compiled networks: a C++ compiler, and compiles = true")
        if self.precision == "tensorfloat32" and self.device == "cpu":
            raise ValueError("precision = 'tensorfloat32' is a format of GPUs; expected 'float32' or 'bfloat16'")
        return self

    @property
    def place(self) -> Device:
        """Where networks are computed: the device, or the processor where none was chosen."""
        return self.device or "cpu"

    @property
    def arithmetic(self) -> str:
        """What decides the last bits of one network's derivatives, in words for keys."""
        form = f"{'compiled' if self.compiles else 'automatic'} {self.precision}"
        return form if self.place == "cpu" else f"{self.place} {form}"


class Recipe(Section):
    """Every setting of one run.

    Build one in Python, or read it from TOML with `read_recipe`. Two recipes with the same `digest` ask for the same
    result on the same images.
    """

    name: str = Field("medistill", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    seed: int = Field(0, ge=0)
    source: SourceSettings = SourceSettings()
    network: NetworkSettings = NetworkSettings()
    augment: AugmentSettings = AugmentSettings()
    teachers: TeacherSettings = TeacherSettings()
    distill: DistillSettings = DistillSettings()
    pretrain: PretrainSettings = PretrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    machine: MachineSettings = MachineSettings()

    @model_validator(mode="before")
    @classmethod
    def _follow_teachers_to_their_end(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Where nothing is said, a student may start wherever its teacher still goes on for long enough."""
        teachers, distill = (given.get(name, {}) for name in ("teachers", "distill"))
        if not isinstance(teachers, dict) or not isinstance(distill, dict) or "max_start_epoch" in distill:
            return given
        epochs = teachers.get("epochs", TeacherSettings().epochs)
        ahead = distill.get("expert_epochs", DistillSettings().expert_epochs)
        if not isinstance(epochs, int) or not isinstance(ahead, int):
            return given  # whose refusal says more
        return given | {"distill": distill | {"max_start_epoch": max(epochs - ahead, 0)}}

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.last_teacher_epoch > self.teachers.epochs:
            raise ValueError(
                f"distill.max_start_epoch + distill.expert_epochs = {self.last_teacher_epoch} lies beyond "
                f"teachers.epochs = {self.teachers.epochs}: train teachers longer or start earlier"
            )
        if self.teachers.also and self.distill.objective == "pruned" and self.distill.similarity == "easy":
            raise ValueError(
                "distill.similarity = 'easy' remembers parameters of one network: leave teachers.also out, or choose "
                "another similarity"
            )
        if self.teachers.also and self.distill.importance_rate > 0:
            raise ValueError("distill.importance_rate weighs the layers of one network: leave teachers.also out")
        if len(self.teachers.also) >= self.teachers.count:
            raise ValueError(
                f"teachers.count = {self.teachers.count} leaves networks of teachers.also without a teacher: ask for "
                f"{len(self.teachers.also) + 1} or more"
            )
        if "resnet18bn" in (self.network.architecture, *self.teachers.also):
            raise ValueError(
                "nothing is distilled through batch norm: name resnet18bn in evaluate.unseen alone, and choose another "
                "network"
            )
        judged = (self.network.architecture, *self.evaluate.unseen)
        if twice := sorted(name for name in set(judged) if judged.count(name) > 1):
            raise ValueError(
                f"evaluate.unseen names {', '.join(twice)} twice, or the recipe's own network: it would count double. "
                "Name networks that the images were not made for, each once"
            )
        size, depth = self.source.image_size, self.network.depth
        if size is not None and self.network.architecture == "convnet" and size < 2**depth:
            raise ValueError(
                f"network.depth = {depth} halves an image {depth} times, so source.image_size must be at least "
                f"{2**depth}; it is {size}"
            )
        if size is not None and size % self.distill.formation:
            raise ValueError(
                f"distill.formation = {self.distill.formation} does not divide source.image_size = {size}: choose a "
                "number that does, or 1 for one film an image"
            )
        return self

    @property
    def last_teacher_epoch(self) -> int:
        """The last epoch that distillation can ask of a teacher; training longer would be wasted."""
        return self.distill.max_start_epoch + self.distill.expert_epochs

    def teacher_network(self, teacher: int) -> NetworkSettings:
        """The network of a teacher: the recipe's and those of `teachers.also` take turns."""
        architectures = (self.network.architecture, *self.teachers.also)
        return self.network_as(architectures[teacher % len(architectures)])

    def network_as(self, architecture: Architecture) -> NetworkSettings:
        """The network's settings with another architecture, for networks that the images were not made for."""
        return self.network.model_copy(update={"architecture": architecture})

    def seed_for(self, purpose: str) -> int:
        """A 63-bit seed that depends on `seed` and on `purpose` alone, for instance `"teacher/3/epoch/5"`."""
        hashed = hashlib.sha256(f"medistill/{self.seed}/{purpose}".encode()).digest()
        return int.from_bytes(hashed[:8], "big") >> 1

    def public(self) -> dict[str, Any]:
        """The settings without those that change no result: `source.path`, the number of processes, memory, graphs."""
        settings = self.model_dump(mode="json")
        del settings["source"]["path"]
        for unseen in ("processes", "keep_mb", "graphs"):
            del settings["machine"][unseen]
        return settings

    def digest(self, *sections: str) -> str:
        """SHA-256 of the settings that matter, or of some sections with the seed, as 64 hexadecimal digits."""
        settings = self.public()
        chosen = {name: settings[name] for name in (*sections, "seed")} if sections else settings
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    def distillation_digest(self) -> str:
        """SHA-256 of the settings that decide the distilled set: all but its name, its storage and later evaluation."""
        settings = self.public()
        del settings["name"], settings["pretrain"], settings["distill"]["encoding"]
        for later in ("networks", "search_networks", "full_epochs", "unseen", "rows"):
            del settings["evaluate"][later]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        """The public settings as TOML; a setting that is absent means "choose for me" and is left out."""
        return tomli_w.dumps(_without_none(self.public()))


def read_recipe(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    """Read a recipe from a TOML file and apply `--set a.b=c` overrides, whose values are read as TOML.

    Raises:
        RecipeError: the file is absent or not TOML, a key is unknown, or a value is refused.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"{path.name}: cannot be read ({error.strerror}). Give the path of a recipe in TOML."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path.name}: is not TOML ({error}). Compare it with a file in recipes/.") from error
    return recipe_from(settings, overrides, name=path.name)


def recipe_from(settings: dict[str, Any], overrides: dict[str, str] | None = None, name: str = "recipe") -> Recipe:
    """Build a recipe from plain dictionaries; `name` says in messages where they came from.

    Raises:
        RecipeError: a key is unknown (with the nearest known one) or a value is refused.
    """
    merged = json.loads(json.dumps(settings, default=str))
    for key, text in (overrides or {}).items():
        *tables, last = key.split(".")
        table = merged
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise RecipeError(f"--set {key}: {part} is a value, not a section.{_suggestion(key)}")
        table[last] = _toml_value(text)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        # What follows from a refused value is not refused as well.
        faults = [fault for fault in error.errors() if fault["type"] != "default_factory_not_called"]
        raise RecipeError("\n".join(_explain(name, fault) for fault in faults)) from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(name: str, fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{name}: {key} is not a setting.{_suggestion(key)}"
    reason = fault["msg"].removeprefix("Value error, ")
    if not key:
        return f"{name}: {reason}."
    # What was found is shown unless it may name a place on the holder's disk.
    found = "" if key in ("source", "source.path") or isinstance(fault["input"], dict) else f" = {fault['input']!r}"
    return f"{name}: {key}{found}. {reason}."


def _suggestion(key: str) -> str:
    known = _known_keys()
    by_name: dict[str, list[str]] = {}
    for candidate in known:
        by_name.setdefault(candidate.rsplit(".", 1)[-1], []).append(candidate)
    whole = difflib.get_close_matches(key, [*known, *Recipe.model_fields], n=1, cutoff=0.75)
    if whole:
        return f" Did you mean {whole[0]}?"
    last = difflib.get_close_matches(key.rsplit(".", 1)[-1], by_name, n=1, cutoff=0.6)
    if last:
        return f" Did you mean {' or '.join(by_name[last[0]])}?"
    return f" Known: {', '.join(sorted(known))}."


def _known_keys() -> list[str]:
    keys = []
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            keys += [f"{name}.{key}" for key in section.model_fields]
        else:
            keys.append(name)
    return keys


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value
