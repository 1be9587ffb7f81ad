from datetime import date

import minisign
import numpy as np
import pytest

from medistill.errors import PackageError
from medistill.merge import merge, pooled, read_mapping
from medistill.package import Terms, Training, Transform, open_package, pack, sign_package
from samples import contents


def package(folder, name, **changes):
    """Every name has images of its own."""
    own = np.random.default_rng(list(name.encode())).random((2, 1, 8, 8), dtype=np.float32)
    return pack(folder / f"{name}.medistill", **contents(**{"name": name, "images": own} | changes))


@pytest.fixture
def two(tmp_path):
    """Hospitals with other classes, in another order, with other transforms and rates; one signs."""
    first = package(tmp_path, "first", class_names=("normal", "pneumonia"), inner_rate=0.01)
    soft = np.array([[0.75, 0.25], [0.1, 0.9]], dtype=np.float32)
    package(
        tmp_path,
        "second",
        class_names=("covid", "normal"),
        labels=soft,
        inner_rate=0.04,
        transform=Transform(mean=(0.7,), std=(0.25,)),
    )
    second = sign_package(
        tmp_path / "second.medistill", "St Luke", minisign.KeyPair.generate().secret_key, date.today()
    )
    return first, second


def test_classes_are_matched_by_name_and_images_stay_what_they_are(tmp_path, two):
    merged = merge(two, tmp_path / "both.medistill", "both")
    assert merged.class_names == ("normal", "pneumonia", "covid")
    np.testing.assert_array_equal(merged.images, np.concatenate([each.images for each in two]))
    np.testing.assert_allclose(merged.targets, [[1, 0, 0], [0, 1, 0], [0.25, 0, 0.75], [0.9, 0, 0.1]])
    assert open_package(tmp_path / "both.medistill", allow_unsigned=True).digest == merged.digest


def test_the_transform_is_that_of_all_pixels_and_rates_are_in_between(tmp_path, two):
    merged = merge(two, tmp_path / "both.medistill", "both")
    (mean,), (std,) = merged.manifest.transform.mean, merged.manifest.transform.std
    assert mean == pytest.approx(0.6)
    assert std == pytest.approx(np.sqrt(0.25**2 + 0.1**2))
    assert merged.inner_rate == pytest.approx(0.02)


def test_class_offsets_follow_their_classes_and_count_by_the_number_of_images(tmp_path):
    training = contents()["training"]
    first = package(tmp_path, "first", training=training.model_copy(update={"class_offsets": (0.5, -0.5)}))
    names, images = first.class_names, np.ones((4, 1, 8, 8), dtype=np.float32)
    labels = np.array([0, 0, 1, 1])
    second = package(tmp_path, "second", class_names=(names[1], "other"), images=images, labels=labels)
    merged = merge([first, second], tmp_path / "both.medistill", "both")
    share = len(first.images) / (len(first.images) + 4)
    assert merged.manifest.training.class_offsets == pytest.approx((0.5 * share, -0.5 * share, 0))
    assert (
        merge([second, package(tmp_path, "third")], tmp_path / "none.medistill", "none").manifest.training.class_offsets
        is None
    )


def test_classes_that_become_one_have_the_mean_of_their_class_offsets(tmp_path):
    names, images = ("covid", "other pneumonia", "normal"), np.zeros((6, 1, 8, 8), dtype=np.float32)
    training = contents()["training"].model_copy(update={"class_offsets": (0.9, 0.3, -1.2)})
    ours = package(tmp_path, "ours", class_names=names, images=images, labels=np.arange(3).repeat(2), training=training)
    together = pooled([ours], {"covid": "pneumonia", "other pneumonia": "pneumonia"})
    assert together.class_names == ("pneumonia", "normal")
    assert together.training.class_offsets == pytest.approx((0.6, -1.2))


def test_only_what_the_terms_of_all_allow_is_allowed(tmp_path):
    ours = package(tmp_path, "ours", terms=Terms(use="any", commercial=True, expires=date(2099, 1, 31)))
    theirs = package(
        tmp_path, "theirs", images=np.ones((2, 1, 8, 8), dtype=np.float32), terms=Terms(use="any-research")
    )
    merged = merge([ours, theirs], tmp_path / "both.medistill", "both")
    assert merged.manifest.terms == Terms(use="any-research", expires=date(2099, 1, 31))


def test_it_says_what_it_was_made_of_and_claims_no_evidence(tmp_path, two):
    made = merge(two, tmp_path / "both.medistill", "both").manifest.provenance
    assert [(source.name, source.package_id) for source in made.sources] == [
        (each.manifest.name, each.manifest.package_id) for each in two
    ]
    assert [source.signer and source.signer.name for source in made.sources] == [None, "St Luke"]
    assert made.method == "merged: pruned trajectory matching"
    merged = open_package(tmp_path / "both.medistill", allow_unsigned=True)
    assert merged.utility is None
    assert merged.recipe_toml is None
    assert merged.manifest.class_prior is None


def test_a_mapping_gives_one_name_to_what_hospitals_call_differently(tmp_path, two):
    merged = merge(two, tmp_path / "both.medistill", "both", {"covid": "pneumonia"})
    assert merged.class_names == ("normal", "pneumonia")
    np.testing.assert_allclose(merged.targets[2:], [[0.25, 0.75], [0.9, 0.1]])


def test_two_hard_labelled_sets_stay_hard(tmp_path):
    pair = [package(tmp_path, name, inner_rate=rate) for name, rate in (("a", 0.1), ("b", 0.2))]
    assert merge(pair, tmp_path / "ab.medistill", "ab").labels.tolist() == [0, 1, 0, 1]


def test_a_set_that_leaks_makes_the_whole_leak(tmp_path, two):
    real = contents()["provenance"].model_copy(update={"start": "real", "leaks_real_images": True})
    made = merge(
        (two[0], package(tmp_path, "real", provenance=real)), tmp_path / "c.medistill", "c"
    ).manifest.provenance
    assert made.leaks_real_images
    assert made.start == "unknown"


def test_what_cannot_be_trained_on_alike_is_refused(tmp_path, two):
    large = package(tmp_path, "large", images=np.zeros((2, 1, 16, 16), np.float32))
    with pytest.raises(PackageError, match=r"first and large differ in size \(8 x 8 and 16 x 16\)"):
        merge((two[0], large), tmp_path / "x.medistill", "x")
    training = contents()["training"]
    wider = training.model_dump() | {"network": training.network.model_dump() | {"width": 16}}
    other = package(tmp_path, "wider", training=Training.model_validate(wider))
    with pytest.raises(PackageError, match=r"differ in width \(8 and 16\)"):
        merge((two[0], other), tmp_path / "x.medistill", "x")
    again = sign_package(
        tmp_path / "second.medistill", "Dr X", minisign.KeyPair.generate().secret_key, date(2027, 1, 1)
    )
    for twice in ((two[0], two[0]), (two[1], again)):
        with pytest.raises(PackageError, match="comes twice"):
            merge(twice, tmp_path / "x.medistill", "x")
    eight_bits = package(tmp_path, "smaller", images=two[0].images, encoding="uint8")
    with pytest.raises(PackageError, match="comes twice"):
        merge((two[0], eight_bits), tmp_path / "x.medistill", "x")
    with pytest.raises(PackageError, match="expected two or more"):
        merge(two[:1], tmp_path / "x.medistill", "x")
    with pytest.raises(PackageError, match="the mapping names flu, which no package has"):
        merge(two, tmp_path / "x.medistill", "x", {"flu": "covid"})
    assert not (tmp_path / "x.medistill").exists()


def test_a_mapping_is_read_from_a_table_or_refused(tmp_path):
    path = tmp_path / "words.csv"
    path.write_text("from,to\ncovid,COVID-19\n", encoding="utf-8")
    assert read_mapping(path) == {"covid": "COVID-19"}
    for text, reason in (
        ("a,b\n1,2\n", "expected from,to"),
        ("from,to\na,b\na,c\n", "'a,c'; expected two names"),
        ("from,to\na,b,c\n", "'a,b,c'; expected two names"),
        ("from,to\na\n", "'a'; expected two names"),
        ("from,to\n,b\n", "',b'; expected two names"),
        ("", "expected from,to"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(PackageError, match=reason):
            read_mapping(path)
    with pytest.raises(PackageError, match=r"absent\.csv cannot be read"):
        read_mapping(tmp_path / "absent.csv")


def test_odd_but_valid_statements_are_refused_and_not_raised(tmp_path):
    far = [
        package(tmp_path, name, transform=Transform(mean=(mean,), std=(1e4,)), inner_rate=rate)
        for name, mean, rate in (("a", 1e4, 0.1), ("b", -1e4, 0.2))
    ]
    with pytest.raises(PackageError, match="transform"):
        merge(far, tmp_path / "x.medistill", "x")
    wordy = contents()["provenance"].model_copy(update={"method": "x " * 95 + "y z"})
    long = package(tmp_path, "long", provenance=wordy, inner_rate=0.7)
    merged = merge((long, package(tmp_path, "short", inner_rate=0.8)), tmp_path / "y.medistill", "y")
    assert len(merged.manifest.provenance.method) <= 200


def test_classes_that_go_by_numbers_are_not_matched_until_they_are_named(tmp_path):
    numbers = [package(tmp_path, name, class_names=("0", "1")) for name in ("first", "second")]
    for mapping, said in (({}, "0, 1"), ({"0": "normal"}, "normal, 1")):
        with pytest.raises(PackageError, match=f"first: found the class names {said}, with numbers that another"):
            merge(numbers, tmp_path / "both.medistill", "both", mapping)
    named = merge(numbers, tmp_path / "both.medistill", "both", {"0": "normal", "1": "pneumonia"})
    assert named.class_names == ("normal", "pneumonia")
