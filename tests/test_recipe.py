import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medistill.errors import RecipeError
from medistill.recipe import NetworkSettings, Recipe, Section, read_recipe, recipe_from

# one other value for every setting there is; a setting that is added must be added here
OTHER = {
    "name": "another",
    "seed": 7,
    "source.path": "elsewhere.npz",
    "source.image_size": 32,
    "source.channels": 3,
    "source.validation_fraction": 0.15,
    "source.test_fraction": 0.25,
    "network.architecture": "resnet18",
    "network.width": 64,
    "network.depth": 4,
    "network.first_padding": 3,
    "augment.rotate_degrees": 4.0,
    "augment.scale": 0.2,
    "augment.shift": 0.1,
    "augment.brightness": 0.3,
    "augment.contrast": 0.3,
    "augment.cutout": 0.25,
    "augment.flip": True,
    "teachers.count": 11,
    "teachers.epochs": 14,
    "teachers.sampling": "natural",
    "teachers.rate": 0.03,
    "teachers.momentum": 0.9,
    "teachers.weight_decay": 1e-4,
    "teachers.average": 0.99,
    "teachers.batch_size": 96,
    "teachers.storage": "full",
    "distill.ipc": 3,
    "distill.student_steps": 30,
    "distill.expert_epochs": 1,
    "distill.max_start_epoch": 2,
    "distill.outer_steps": 90,
    "distill.objective": "mtt",
    "distill.threshold": 0.2,
    "distill.similarity": "displacement",
    "distill.start": "noise",
    "distill.images_per_mean": 32,
    "distill.start_noise": 0.2,
    "distill.batch_size": 5,
    "distill.micro_batch": 5,
    "distill.optimizer": "sgd",
    "distill.image_rate": 0.3,
    "distill.image_momentum": 0.9,
    "distill.inner_rate": 0.05,
    "distill.log_rate_step": 0.02,
    "distill.learn_labels": True,
    "distill.label_rate": 0.05,
    "distill.ema": 0.9,
    "distill.class_offsets": False,
    "distill.encoding": "uint8",
    "distill.validate_every": 20,
    "distill.validate_networks": 3,
    "distill.validate_images": 500,
    "distill.real_batch": 64,
    "teachers.also": ["resnet18"],
    "teachers.logit_adjustment": 1.0,
    "teachers.sharpness_radius": 0.1,
    "teachers.surrogate_gap": 0.5,
    "distill.formation": 2,
    "distill.enlarging": "cosine",
    "distill.smoothness": 2.0,
    "distill.ipc_power": 0.5,
    "distill.min_start_epoch": 1,
    "distill.first_max_start_epoch": 2,
    "distill.window_steps": 50,
    "distill.gradient": "tesla",
    "distill.easy_error": 1e-8,
    "distill.easy_growth": 1.5,
    "distill.easy_growth_every": 100,
    "distill.angle_weight": 0.5,
    "distill.importance_rate": 0.1,
    "distill.label_start": "teachers",
    "pretrain.steps": 200,
    "pretrain.batch_size": 64,
    "pretrain.rate": 3e-4,
    "pretrain.weight_decay": 0.0,
    "evaluate.networks": 3,
    "evaluate.search_networks": 2,
    "evaluate.rates": [0.01, 0.1],
    "evaluate.steps": 200,
    "evaluate.full_epochs": 8,
    "evaluate.batch_size": 64,
    "evaluate.momentum": 0.5,
    "evaluate.weight_decay": 0.0,
    "evaluate.schedule": "constant",
    "evaluate.unseen": ["resnet18"],
    "evaluate.rows": ["distilled"],
    "machine.device": "cuda",
    "machine.threads": 1,
    "machine.compiles": True,
    "machine.processes": 2,
    "machine.precision": "bfloat16",
    "machine.keep_mb": 100,
    "machine.graphs": True,
}
NEEDED_BESIDES = {
    "teachers.logit_adjustment": {"teachers": {"sampling": "natural"}},
    "teachers.surrogate_gap": {"teachers": {"sharpness_radius": 0.05}},
    "distill.label_start": {"distill": {"learn_labels": True}},
}
CHANGES_NO_RESULT = {"source.path", "machine.processes", "machine.keep_mb", "machine.graphs"}


def before(key: str) -> Recipe:
    """The recipe to which a setting can be added."""
    return recipe_from(NEEDED_BESIDES.get(key, {}))


def with_setting(key: str, value: object) -> Recipe:
    *tables, last = key.split(".")
    besides = NEEDED_BESIDES.get(key, {})
    return recipe_from({tables[0]: besides.get(tables[0], {}) | {last: value}} if tables else {last: value})


def refusal(settings: dict, overrides: dict | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_from(settings, overrides)
    return str(caught.value)


def test_every_setting_has_a_place_in_these_tests():
    known = set()
    for name, field in Recipe.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            known |= {f"{name}.{key}" for key in section.model_fields}
        else:
            known.add(name)
    assert set(OTHER) == known


@pytest.mark.parametrize("key", sorted(set(OTHER) - CHANGES_NO_RESULT))
def test_any_change_that_can_change_a_result_changes_the_digest_and_the_toml(key):
    changed = with_setting(key, OTHER[key])
    assert changed.digest() != before(key).digest()
    assert changed.to_toml() != before(key).to_toml()


@pytest.mark.parametrize("key", sorted(CHANGES_NO_RESULT))
def test_where_images_lie_and_how_many_processes_run_enter_neither_digest_nor_toml(key):
    changed = with_setting(key, OTHER[key])
    assert changed != Recipe()
    assert changed.digest() == Recipe().digest()
    assert changed.to_toml() == Recipe().to_toml()


@pytest.mark.parametrize("key", sorted(OTHER))
def test_the_public_settings_come_back_from_toml_with_the_same_digest(tmp_path, key):
    written = with_setting(key, OTHER[key])
    (tmp_path / "recipe.toml").write_text(written.to_toml(), encoding="utf-8")
    read = read_recipe(tmp_path / "recipe.toml")
    assert read.digest() == written.digest()
    assert read.to_toml() == written.to_toml()


def test_a_precision_that_the_device_cannot_compute_in_is_refused():
    assert "is a format of GPUs" in refusal({"machine": {"device": "cpu", "precision": "tensorfloat32"}})
    assert "needs compiled networks" in refusal({"machine": {"compiles": False, "precision": "bfloat16"}})


def test_what_decides_the_last_bits_of_a_network_has_words_of_its_own():
    machines = [
        {"device": device, "compiles": compiles, "precision": precision}
        for device, precisions in {"cpu": ("float32",), "cuda": ("float32", "tensorfloat32")}.items()
        for precision in precisions
        for compiles in (True, False)
    ]
    assert len({recipe_from({"machine": machine}).machine.arithmetic for machine in machines}) == len(machines)
    assert recipe_from({"machine": {"device": "cpu"}}).machine.arithmetic == Recipe().machine.arithmetic


def test_the_digest_of_a_section_depends_on_that_section_and_the_seed_alone():
    about_teachers = Recipe().digest("teachers", "network")
    assert with_setting("distill.ipc", 3).digest("teachers", "network") == about_teachers
    assert with_setting("teachers.count", 3).digest("teachers", "network") != about_teachers
    assert with_setting("network.width", 8).digest("teachers", "network") != about_teachers
    assert with_setting("seed", 1).digest("teachers", "network") != about_teachers


@pytest.mark.parametrize(
    ("settings", "named", "suggested"),
    [
        ({"distill": {"student_step": 3}}, "distill.student_step", "distill.student_steps"),
        ({"student_step": 3}, "student_step", "distill.student_steps"),
        ({"teachers": {"student_steps": 3}}, "teachers.student_steps", "distill.student_steps"),
        ({"distil": {"ipc": 3}}, "distil", "distill"),
        ({"sede": 3}, "sede", "seed"),
        ({"distill": {"momentum": 0.5}}, "distill.momentum", "distill.image_momentum"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(settings, named, suggested):
    assert refusal(settings) == f"recipe: {named} is not a setting. Did you mean {suggested}?"


@pytest.mark.parametrize(
    ("teachers", "distill", "latest"),
    [({}, {}, 9), ({"epochs": 5}, {}, 2), ({}, {"expert_epochs": 2}, 10), ({"epochs": 5}, {"max_start_epoch": 1}, 1)],
)
def test_students_start_wherever_teachers_go_on_for_long_enough(teachers, distill, latest):
    assert recipe_from({"teachers": teachers, "distill": distill}).distill.max_start_epoch == latest


@pytest.mark.parametrize(
    ("distill", "steps"), [({"ipc": 1}, 100), ({}, 100), ({"ipc": 20}, 200), ({"ipc": 20, "outer_steps": 7}, 7)]
)
def test_more_images_take_more_outer_steps_unless_they_are_counted(distill, steps):
    assert recipe_from({"distill": distill}).distill.outer_steps == steps


def test_teachers_who_do_not_go_as_far_as_they_are_to_be_followed_are_refused():
    assert "lies beyond teachers.epochs = 2" in refusal({"teachers": {"epochs": 2}})
    assert "teachers.epochs" in refusal({"teachers": {"epochs": "many"}})


def test_films_that_do_not_divide_an_image_are_refused_before_anything_is_made():
    said = refusal({"source": {"image_size": 63}, "distill": {"formation": 2}})
    assert "distill.formation = 2 does not divide source.image_size = 63" in said


def test_a_key_like_no_other_is_refused_with_all_that_are_known():
    said = refusal({"zzz": 1})
    assert said.startswith("recipe: zzz is not a setting. Known: ")
    assert all(key in said for key in OTHER)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("distill", "student_steps", 0),
        ("distill", "ipc", 0),
        ("distill", "threshold", 1.5),
        ("distill", "threshold", -0.1),
        ("distill", "objective", "tesla"),
        ("distill", "log_rate_step", 0.6),
        ("distill", "ema", 1.0),
        ("distill", "inner_rate", 0.0),
        ("teachers", "momentum", 1.0),
        ("teachers", "rate", -0.01),
        ("source", "channels", 2),
        ("source", "test_fraction", 0.5),
        ("network", "width", 3),
        ("augment", "scale", 1.0),
        ("augment", "rotate_degrees", 181),
        ("machine", "threads", 0),
        ("distill", "inner_rate", float("nan")),
        ("distill", "ipc", float("nan")),
        ("augment", "brightness", float("inf")),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_key_and_value(section, key, value):
    assert refusal({section: {key: value}}).startswith(f"recipe: {section}.{key} = {value!r}. Input should be ")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_every_rate_of_the_search_is_checked(value):
    assert refusal({"evaluate": {"rates": [0.1, value]}}).startswith(f"recipe: evaluate.rates.1 = {value!r}. ")
    assert refusal({"evaluate": {"rates": []}}).startswith("recipe: evaluate.rates = []. ")


def test_every_fault_is_told_at_once():
    assert len(refusal({"distill": {"ipc": 0}, "teachers": {"count": 0}}).splitlines()) == 2


def test_a_schedule_beyond_the_teachers_is_refused():
    said = refusal({"teachers": {"epochs": 6}, "distill": {"max_start_epoch": 5, "expert_epochs": 2}})
    assert "distill.max_start_epoch + distill.expert_epochs = 7 lies beyond teachers.epochs = 6" in said
    fits = recipe_from({"teachers": {"epochs": 7}, "distill": {"max_start_epoch": 5, "expert_epochs": 2}})
    assert fits.last_teacher_epoch == 7


@pytest.mark.parametrize(("unseen", "twice"), [(["vit", "vgg11", "vit"], "vit"), (["vit", "convnet"], "convnet")])
def test_a_network_that_would_count_double_is_refused(unseen, twice):
    assert f"evaluate.unseen names {twice} twice" in refusal({"evaluate": {"unseen": unseen}})


@pytest.mark.parametrize(("objective", "step", "learns"), [("mtt", 0.03, True), ("mtt", 0, False), ("dm", 0.03, False)])
def test_a_rate_is_learned_where_the_objective_reads_it_and_steps_are_taken(objective, step, learns):
    settings = recipe_from({"distill": {"objective": objective, "log_rate_step": step}}).distill
    assert settings.learns_rate == learns


def test_a_network_too_deep_for_the_images_is_refused():
    said = refusal({"source": {"image_size": 15}, "network": {"depth": 4}})
    assert "source.image_size must be at least 16; it is 15" in said
    recipe_from({"source": {"image_size": 16}, "network": {"depth": 4}})


def test_a_recipe_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 1


@given(st.integers(0, 2**40), st.text(max_size=20))
def test_a_seed_depends_on_the_recipes_seed_and_the_purpose_alone(seed, purpose):
    drawn = Recipe(seed=seed).seed_for(purpose)
    assert drawn == recipe_from({"seed": seed, "name": "other", "distill": {"ipc": 3}}).seed_for(purpose)
    assert 0 <= drawn < 2**63
    assert drawn != Recipe(seed=seed + 1).seed_for(purpose)
    assert drawn != Recipe(seed=seed).seed_for(purpose + "x")


def test_seeds_do_not_move_between_versions():
    assert Recipe(seed=0).seed_for("teacher/3") == 3_855_665_724_930_721_830


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("distill.ipc", "5", 5),
        ("distill.inner_rate", "1e-3", 0.001),
        ("distill.start", "real", "real"),
        ("distill.start", '"real"', "real"),
        ("evaluate.rates", "[0.1, 0.2]", (0.1, 0.2)),
        ("augment.flip", "true", True),
        ("name", "of-mine", "of-mine"),
        ("source.path", "/data/films.npz", "/data/films.npz"),
    ],
)
def test_an_override_is_read_as_toml_and_otherwise_as_text(key, text, value):
    changed = recipe_from({"distill": {"ipc": 3}}, {key: text})
    for part in key.split("."):
        changed = getattr(changed, part)
    assert changed == value


def test_an_override_leaves_the_rest_and_the_settings_it_was_given(tmp_path):
    settings = {"distill": {"ipc": 3, "student_steps": 7}}
    assert recipe_from(settings, {"distill.ipc": "5"}).distill.student_steps == 7
    assert settings == {"distill": {"ipc": 3, "student_steps": 7}}


def test_an_override_into_a_value_is_refused():
    assert refusal({"seed": 1}, {"seed.x": "3"}).startswith("--set seed.x: seed is a value, not a section.")
    assert refusal({}, {"distil.ipc": "3"}) == "recipe: distil is not a setting. Did you mean distill?"


@pytest.mark.parametrize("content", [b"seed = ", b"\xff", b"seed = 1\nseed = 2"])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"^bad\.toml: is not TOML"):
        read_recipe(tmp_path / "bad.toml")


def test_a_file_that_is_absent_is_refused_without_its_folder(tmp_path):
    with pytest.raises(RecipeError, match=r"^absent\.toml: cannot be read") as caught:
        read_recipe(tmp_path / "absent.toml")
    assert str(tmp_path) not in str(caught.value)


def test_a_refused_file_is_named(tmp_path):
    (tmp_path / "mine.toml").write_text("[distill]\nipc = 0\n")
    with pytest.raises(RecipeError, match=r"^mine\.toml: distill\.ipc = 0\. "):
        read_recipe(tmp_path / "mine.toml")


def test_the_toml_holds_no_place_on_the_holders_disk():
    secret = recipe_from({"source": {"path": "/hospital/ward-7"}})
    assert "path" not in tomllib.loads(secret.to_toml())["source"]
    assert "hospital" not in secret.to_toml() + str(secret.public())


def test_a_network_in_another_architecture_keeps_its_other_settings():
    other = recipe_from({"network": {"width": 8}}).network_as("resnet18")
    assert (other.architecture, other.width) == ("resnet18", 8)


@pytest.mark.parametrize(
    ("power", "counts", "expected"),
    [
        (0.0, (1807, 280, 5500, 730), (10, 10, 10, 10)),
        (1.0, (1807, 280, 5500, 730), (9, 2, 25, 4)),
        (0.5, (1807, 280, 5500, 730), (10, 5, 18, 7)),
        (1.0, (10**6, 1), (19, 1)),
    ],
)
def test_classes_get_images_by_a_power_of_their_share(power, counts, expected):
    found = recipe_from({"distill": {"ipc": 10, "ipc_power": power}}).distill.images_of_each(counts)
    assert found == expected
    assert sum(found) == 10 * len(counts)


@pytest.mark.parametrize(
    ("size", "optimizer", "smoothness"), [(28, "adam", 0), (32, "adam", 0), (64, "adam", 1), (64, "sgd", 0)]
)
def test_a_smoothness_that_is_not_given_suits_the_images_and_the_optimizer(size, optimizer, smoothness):
    settings = {"optimizer": optimizer}
    assert recipe_from({"distill": settings}).distill.for_images(size).smoothness == smoothness
    assert recipe_from({"distill": settings | {"smoothness": 0.5}}).distill.for_images(size).smoothness == 0.5


@pytest.mark.parametrize(("steps", "rate"), [(5, 0.08), (10, 0.04), (40, 0.01)])
def test_a_first_rate_that_is_not_given_leads_equally_far_in_any_number_of_steps(steps, rate):
    settings = {"student_steps": steps}
    assert recipe_from({"distill": settings}).distill.inner_rate == pytest.approx(rate)
    assert recipe_from({"distill": settings | {"inner_rate": 0.3}}).distill.inner_rate == 0.3


@pytest.mark.parametrize(("size", "depth"), [(8, 1), (28, 3), (32, 3), (64, 4), (112, 5), (128, 5), (224, 6)])
def test_a_depth_that_is_not_given_suits_the_images(size, depth):
    assert NetworkSettings(width=8).for_images(size).depth == depth
    assert NetworkSettings(depth=2).for_images(size).depth == 2


@pytest.mark.parametrize(
    ("objective", "said", "states"),
    [
        ("pruned", None, True),
        ("mtt", None, True),
        ("mtt", False, False),
        ("dm", None, False),
        ("dm", True, True),
        ("dsa", None, False),
        ("soft-label", None, False),
    ],
)
def test_class_offsets_are_stated_where_they_help_or_the_recipe_says_so(objective, said, states):
    settings = {"objective": objective, "learn_labels": False} | ({} if said is None else {"class_offsets": said})
    assert recipe_from({"distill": settings}).distill.states_offsets is states
