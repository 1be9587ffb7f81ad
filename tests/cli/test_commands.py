import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner, Result

import toys
from medistill.cli import app
from medistill.recipe import read_recipe


def medistill(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy films as an npz and a recipe for them."""
    folder = tmp_path_factory.mktemp("place")
    toys.write_npz(folder / "films.npz")
    recipe = toys.recipe({"name": "toy", "machine.threads": 1}).model_dump(mode="json", exclude_none=True)
    recipe["source"]["path"] = str(folder / "films.npz")
    recipe["machine"]["processes"] = 1
    (folder / "toy.toml").write_text(tomli_w.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def key(place: Path) -> Path:
    """A secret key without a passphrase; its public half lies beside it."""
    (place / "passphrase").write_text("\n")
    result = medistill("keys", "new", "st-marys", "--out", place, "--passphrase-file", place / "passphrase")
    assert result.exit_code == 0, result.stderr
    return place / "st-marys.key"


@pytest.fixture(scope="module")
def products(place: Path, key: Path) -> dict[str, str]:
    signing = ("--key", key, "--passphrase-file", place / "passphrase")
    result = medistill("run", place / "toy.toml", "--out", place / "out", *signing, "--json")
    assert result.exit_code == 0, result.stderr
    answer: dict[str, str] = json.loads(result.stdout)
    return answer


def test_run_ends_with_the_paths_of_what_it_made(products: dict[str, str]) -> None:
    assert {"package", "report", "utility"} <= set(products)
    assert all(Path(path).exists() for path in products.values())
    rows = json.loads(Path(products["utility"]).read_text())["rows"]
    distilled = next(row for row in rows if row["name"] == "distilled")
    assert set(distilled["balanced_accuracy"]) == {"mean", "sd", "n"}


def test_the_receiver_verifies_looks_and_trains(products: dict[str, str], place: Path) -> None:
    verified = json.loads(medistill("verify", products["package"], "--json").stdout)
    assert verified["ok"]
    shown = json.loads(medistill("show", products["package"], "--json").stdout)
    assert shown["manifest"]["name"] == "toy"
    trained = medistill("train", products["package"], "--test", f"{place / 'films.npz'}#test", "--json")
    row = json.loads(trained.stdout)
    assert row["accuracy"]["n"] == 5
    assert row["split"] == "test"
    assert "matched by index: 0 is 0, 1 is 1" in " ".join(trained.stderr.split())
    (place / "names.csv").write_text("from,to\n0,normal\n1,pneumonia\n")
    common = ("train", products["package"], "--test", place / "films.npz", "--networks", "1")
    named = medistill(*common, "--map", place / "names.csv")
    assert "matched by index: 0 is normal, 1 is pneumonia" in " ".join(named.stderr.split())
    assert "on 12 images of your own" in named.stdout
    assert shown["manifest"]["training"]["class_offsets"] is not None
    assert row["without_offsets"]["name"] == "distilled (without class offsets)"
    left_out = medistill(
        "train", products["package"], "--test", f"{place / 'films.npz'}#test", "--no-offsets", "--json"
    )
    plain = json.loads(left_out.stdout)
    assert plain["without_offsets"] is None
    assert plain["balanced_accuracy"] == row["without_offsets"]["balanced_accuracy"]


def test_show_writes_a_contact_sheet(products: dict[str, str], tmp_path: Path) -> None:
    result = medistill("show", products["package"], "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0
    assert "Not anonymized" in result.stdout
    assert "trained on these images alone, add [" in result.stdout
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_every_stage_is_a_command_of_its_own(place: Path) -> None:
    common = (place / "toy.toml", "--out", place / "stages", "--json")
    teachers = json.loads(medistill("teach", *common).stdout)
    assert teachers["teachers"] == 2
    assert "selected_step" in json.loads(medistill("distill", *common).stdout)
    assert json.loads(medistill("evaluate", *common, "--final").stdout)["split"] == "test"
    assert Path(json.loads(medistill("pack", *common).stdout)["package"]).exists()


def test_a_package_with_one_byte_changed_is_refused_with_exit_code_1(products: dict[str, str], tmp_path: Path) -> None:
    content = bytearray(Path(products["package"]).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.medistill").write_bytes(content)
    result = medistill("verify", tmp_path / "bad.medistill", "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (answer["ok"], answer["error"]) == (False, "Tampered")
    assert str(tmp_path) not in result.output


def test_a_misspelt_key_is_refused_with_a_suggestion(place: Path) -> None:
    result = medistill("run", place / "toy.toml", "--set", "distill.outer_step=3", "--out", place / "none")
    assert result.exit_code == 1
    assert "Did you mean distill.outer_steps?" in result.stderr
    assert not (place / "none").exists()


def test_a_dry_run_predicts_and_writes_nothing(place: Path) -> None:
    result = medistill("run", place / "toy.toml", "--out", place / "dry", "--dry-run", "--json")
    answer = json.loads(result.stdout)
    assert [stage["name"] for stage in answer["stages"]] == ["teachers", "distill", "evaluate"]
    assert answer["seconds"] > 0
    assert not (place / "dry").exists()


def test_a_budget_of_memory_is_met_or_refused(place: Path) -> None:
    asked = ("run", place / "toy.toml", "--out", place / "dry", "--dry-run", "--json", "--memory")
    assert json.loads(medistill(*asked, "100GB").stdout)["memory_bytes"] < 100e9
    refused = medistill(*asked, "1MB")
    assert refused.exit_code == 1
    assert "--memory allows 1.0 MB" in refused.stderr
    misspelt = medistill(*asked, "much")
    assert misspelt.exit_code == 2
    assert "for instance 8GB" in misspelt.stderr


def test_what_a_budget_changed_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medistill import plan

    def halved(opened: Any, budget: int) -> tuple[Any, plan.Plan]:
        return plan._changed(opened, "distill", micro_batch=2), plan.plan(opened)

    monkeypatch.setattr(plan, "fitted", halved)
    result = medistill("run", place / "toy.toml", "--out", place / "dry", "--dry-run", "--memory", "8GB")
    assert "To stay within 8.0 GB: distill.micro_batch = 2." in result.stderr


def test_inspect_says_what_is_there(place: Path) -> None:
    answer = json.loads(medistill("inspect", place / "films.npz", "--json").stdout)
    assert answer["counts"]["train"] == {"0": 12, "1": 12}
    assert "12" in medistill("inspect", place / "films.npz").stdout


def test_a_recipe_without_images_is_refused_and_does_not_fall_back_on_phantoms(place: Path) -> None:
    text = "\n".join(line for line in (place / "toy.toml").read_text().splitlines() if not line.startswith("path"))
    (place / "bare.toml").write_text(text)
    result = medistill("run", place / "bare.toml", "--out", place / "bare")
    assert result.exit_code == 1
    assert "Set source.path" in result.stderr


def test_any_images_can_be_packed_as_a_control(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "control.medistill"
    result = medistill("pack", "--images", f"{place / 'films.npz'}#train", "--out", path, "--json")
    assert json.loads(result.stdout)["images"] == 24
    refused = medistill("verify", path, "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["error"] == "PackageError"
    assert "--allow-unsigned" in refused.stderr
    allowed = medistill("verify", path, "--allow-unsigned", "--json")
    answer = json.loads(allowed.stdout)
    assert (answer["ok"], answer["signed_by"], answer["trusted"]) == (True, None, False)
    assert medistill("verify", path, "--allow-unsigned", "--require-trusted").exit_code == 1


def test_packages_and_own_images_train_together(products: dict[str, str], place: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.medistill"
    medistill("pack", "--images", f"{place / 'films.npz'}#val", "--out", second)
    sources = ("--with", f"{place / 'films.npz'}#train", "--test", f"{place / 'films.npz'}#test")
    common = ("train", products["package"], *sources, "--networks", "1", "--allow-unsigned")
    row = json.loads(medistill(*common, "--json").stdout)
    assert (row["name"], row["images"]) == ("distilled-and-own", 28)
    assert "and own ones" in medistill(*common).stdout
    both = ("train", products["package"], second, *sources, "--allow-unsigned")
    numbered = medistill(*both)
    assert numbered.exit_code == 1
    assert "expected words" in numbered.stderr
    (tmp_path / "names.csv").write_text("from,to\n0,normal\n1,pneumonia\n")
    refused = medistill(*both, "--map", tmp_path / "names.csv")
    assert refused.exit_code == 1
    assert "differ in" in refused.stderr
    wrong = medistill(*common, "--network", "resnet50")
    assert wrong.exit_code == 2
    assert "expected convnet, resnet18, resnet18bn" in wrong.stderr.replace("\n", " ")


def test_batch_norm_is_measured_on_own_images_or_a_note_says_why_it_should(
    products: dict[str, str], place: Path
) -> None:
    films = place / "films.npz"
    common = ("train", products["package"], "--test", f"{films}#test", "--networks", "1", "--allow-unsigned")
    noted = medistill(*common, "--network", "resnet18bn")
    assert "--statistics ours.npz" in noted.stderr
    told = medistill(*common, "--network", "resnet18bn", "--statistics", films)
    assert "batch norm of own images" in " ".join(told.stdout.split())
    assert "--statistics" not in told.stderr
    refused = medistill(*common, "--statistics", films)
    assert refused.exit_code == 1
    assert "has no batch norm" in refused.stderr


def test_reproduce_tells_both_figures_and_ends_with_the_verdict(products: dict[str, str], place: Path) -> None:
    common = ("reproduce", products["package"], "--test", f"{place / 'films.npz'}#val", "--networks", "3")
    told = medistill(*common, "--json")
    assert "matched by index" in told.stderr
    answer = json.loads(told.stdout)
    assert told.exit_code == (0 if answer["agrees"] else 1)
    assert answer["recorded"]["split"] == "validation"
    printed = medistill(*common).stdout
    assert "its maker:" in printed
    assert "agree" in printed


def test_terms_from_a_file_are_sealed_told_and_kept(place: Path, tmp_path: Path) -> None:
    path, terms = tmp_path / "control.medistill", tmp_path / "terms.toml"
    terms.write_text("commercial = true\nexpires = 2001-02-03\n")
    assert medistill("pack", "--images", f"{place / 'films.npz'}#train", "--out", path, "--terms", terms).exit_code == 0
    over = medistill("verify", path, "--allow-unsigned", "--json")
    assert over.exit_code == 1
    assert "ended on 2001-02-03" in json.loads(over.stdout)["message"]
    terms.write_text("commercial = true\nexpires = 2999-02-03\n")
    medistill("pack", "--images", f"{place / 'films.npz'}#train", "--out", path, "--terms", terms)
    answer = json.loads(medistill("verify", path, "--allow-unsigned", "--json").stdout)["terms"]
    assert (answer["commercial"], answer["expires"], answer["redistribution"]) == (True, "2999-02-03", False)
    assert "Also for profit" in medistill("show", path, "--allow-unsigned").stdout.replace("\n", " ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("train", "x.medistill"),
        ("pack",),
        ("pack", "recipes/demo.toml", "--rate", "0.1"),
        ("pack", "--images", "films.npz", "--out", "x.medistill", "--set", "seed=1"),
        ("nonsense",),
        ("verify", "a", "b"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert medistill(*arguments).exit_code == 2


def test_an_interrupt_exits_with_130_and_says_how_to_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("medistill.pipeline.run", interrupted)
    result = medistill("run", place / "toy.toml", "--out", place / "interrupted")
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr


@pytest.mark.parametrize("command", [command.name or command.callback.__name__ for command in app.registered_commands])
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    result = medistill(command, "--help")
    assert f"medistill {command} " in " ".join(result.stdout.split())
    assert result.exit_code == 0


def test_without_the_numeric_half_a_command_says_what_to_install(products: dict[str, str]) -> None:
    code = "import sys; sys.modules['torch'] = None; from medistill.cli import main; sys.argv[0] = 'medistill'; main()"
    arguments = [sys.executable, "-c", code, "train", products["package"], "--test", "phantom"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'medistill[distill]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_prints_a_table_and_leaves_the_comparison(place: Path) -> None:
    common = ("compare", place / "toy.toml", "--out", place / "compared", "--methods", "scratch, byol,full", "--quick")
    changes = ("--set", "pretrain.steps=3", "--set", "evaluate.networks=1")
    printed = medistill(*common, *changes)
    assert printed.exit_code == 0, printed.stderr
    assert "BYOL" in printed.stdout
    assert "unlabelled" in printed.stdout
    told = printed.stdout.replace("\n", "")
    assert str(place / "compared/holder.html") in told
    assert str(place / "compared/packages") not in told  # nothing was distilled
    assert "holder.html is for you alone: beside each synthetic image that it shows" in " ".join(printed.stdout.split())
    answer = json.loads(medistill(*common, *changes, "--json").stdout)
    assert answer == json.loads((place / "compared/comparison.json").read_text())
    assert {row["name"] for row in answer["rows"]} >= {"scratch", "byol", "byol-linear", "full-natural"}
    assert len(answer["seeds"]) == 1
    more = json.loads(medistill(*common, *changes, "--methods", "scratch", "--seeds", "2", "--json").stdout)
    assert len(more["seeds"]) == 2


def test_compare_refuses_an_unknown_method(place: Path) -> None:
    result = medistill("compare", place / "toy.toml", "--methods", "simclr")
    assert result.exit_code == 1
    assert "--methods simclr: expected some of scratch, byol" in result.stderr


def test_tune_prints_every_trial_and_leaves_the_recipe_that_won(place: Path, tmp_path: Path) -> None:
    result = medistill("tune", place / "toy.toml", "--out", tmp_path, "--trials", 2, "--steps", 2)
    assert result.exit_code == 0, result.stderr
    assert "the recipe as it stands" in result.stdout
    tried = json.loads((tmp_path / "tuning.json").read_text())
    assert [bool(trial["settings"]) for trial in tried] == [False, True]
    again = medistill("tune", place / "toy.toml", "--out", tmp_path, "--trials", 2, "--steps", 2, "--json")
    answer = json.loads(again.stdout)
    assert answer["trials"] == tried
    best = max(tried, key=lambda trial: trial["score"])["settings"]
    settings = read_recipe(Path(answer["recipe"])).distill.model_dump()
    assert {key: settings[key] for key in best} == best


def test_study_prints_what_packages_are_worth_and_leaves_the_study(place: Path) -> None:
    common = ("study", place / "toy.toml", "--out", place / "studied", "--own", "1,2", "--rounds", "1", "--seeds", "1")
    changes = ("--no-skewed", "--set", "evaluate.networks=1", "--set", "distill.start=noise")
    printed = medistill(*common, *changes)
    assert printed.exit_code == 0, printed.stderr
    assert "every hospital sees every class" in printed.stdout
    assert "own images a class" in printed.stdout
    answer = json.loads(medistill(*common, *changes, "--json").stdout)
    assert answer == json.loads((place / "studied/study.json").read_text())
    assert {row["help"] for row in answer["rows"]} == {"alone", "package", "packages", "pooled", "federated"}


def test_study_refuses_sizes_that_do_not_rise(place: Path) -> None:
    result = medistill("study", place / "toy.toml", "--own", "10,5")
    assert result.exit_code == 1
    assert "--own 10,5: expected rising numbers" in result.stderr


def test_a_stranger_is_said_to_be_one_until_their_key_is_trusted(products: dict[str, str], key: Path) -> None:
    package, public = products["package"], key.with_suffix(".pub")
    stranger = medistill("verify", package, "--json")
    answer = json.loads(stranger.stdout)
    assert (answer["ok"], answer["signed_by"], answer["trusted"]) == (True, "st-marys", False)
    assert "a key you do not know" in medistill("verify", package).stderr
    assert medistill("verify", package, "--require-trusted").exit_code == 1

    assert "Trusted as Saint Mary" in medistill("keys", "trust", public, "--name", "Saint Mary").stdout
    answer = json.loads(medistill("verify", package, "--require-trusted", "--json").stdout)
    assert (answer["signed_by"], answer["trusted"]) == ("Saint Mary", True)
    listed = json.loads(medistill("keys", "list", "--json").stdout)
    assert [(entry["name"], entry["fingerprint"]) for entry in listed] == [("Saint Mary", answer["fingerprint"])]
    assert answer["fingerprint"] in medistill("keys", "list").stdout.replace("\n", "")

    assert medistill("keys", "revoke", "Saint Mary").exit_code == 0
    for command in (("verify", package), ("show", package), ("train", package, "--test", "phantom")):
        refused = medistill(*command)
        assert refused.exit_code == 1
        assert "was revoked on" in refused.stderr


def test_a_wrong_passphrase_is_told_before_any_work(place: Path, tmp_path: Path) -> None:
    (tmp_path / "right").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("open barley\n")
    assert medistill("keys", "new", "own", "--out", tmp_path, "--passphrase-file", tmp_path / "right").exit_code == 0
    signing = ("--key", tmp_path / "own.key", "--passphrase-file", tmp_path / "wrong")
    refused = medistill("run", place / "toy.toml", "--out", tmp_path / "none", *signing)
    assert refused.exit_code == 1
    assert "the passphrase is another" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_package_can_be_signed_later_and_again(products: dict[str, str], place: Path, tmp_path: Path) -> None:
    package = tmp_path / "again.medistill"
    package.write_bytes(Path(products["package"]).read_bytes())
    again = ("--key", place / "st-marys.key", "--name", "Pediatrics", "--passphrase-file", place / "passphrase")
    assert json.loads(medistill("sign", package, *again, "--json").stdout)["signed_by"] == "Pediatrics"
    assert json.loads(medistill("verify", package, "--json").stdout)["signed_by"] == "Pediatrics"
