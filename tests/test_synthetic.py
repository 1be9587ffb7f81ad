import dataclasses

import numpy as np
import pytest
import torch

from medistill.errors import RecipeError
from medistill.images import LabelledImages
from medistill.package import Transform, open_package, pack
from medistill.recipe import DistillSettings
from medistill.synthetic import SyntheticSet, normalized, refuse_endless_sets, starting_set, trusting_logits
from samples import contents
from toys import TRANSFORM, films

STARTS = ["noise", "class-noise", "class-mean", "real"]


def start(seed: int = 0, real: LabelledImages | None = None, **settings: object) -> SyntheticSet:
    real = real or films((20, 30, 20))
    distill = DistillSettings.model_validate({"ipc": 3, "start": "class-mean"} | settings)
    return starting_set(distill, real, TRANSFORM, seed)


def nearest_film(made: SyntheticSet, real: LabelledImages) -> torch.Tensor:
    """Root mean square difference of each synthetic image from the real one that is most like it."""
    all_films = normalized(torch.from_numpy(real.pixels), TRANSFORM).flatten(1)
    return torch.cdist(made.images.flatten(1), all_films).min(1).values / all_films.shape[1] ** 0.5


@pytest.mark.parametrize("how", STARTS)
def test_a_start_has_ipc_images_of_every_class_in_the_order_of_the_classes(how):
    made = start(start=how, real=films((70, 80, 64)))
    assert made.images.shape == (9, 1, 8, 8)
    assert made.targets.argmax(1).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (made.targets.sum(1) == 1).all()
    assert not made.has_soft_labels
    assert made.class_names == films((1, 1, 1)).class_names
    assert made.inner_rate == DistillSettings().inner_rate
    assert len(made) == 9


@pytest.mark.parametrize("how", STARTS)
def test_the_same_seed_gives_the_same_start_and_another_seed_another(how):
    once, again, other = (start(seed, start=how, real=films((70, 80, 64))).images for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_real_start_copies_different_films_of_the_right_class():
    real = films((20, 30, 20))
    made = start(start="real", ipc=20, real=real)
    everything = normalized(torch.from_numpy(real.pixels), TRANSFORM)
    copied = [[index for index in range(len(real)) if torch.equal(everything[index], image)] for image in made.images]
    assert all(len(matches) == 1 for matches in copied)
    chosen = [matches[0] for matches in copied]
    assert len(set(chosen)) == 60
    assert real.labels[chosen].tolist() == made.targets.argmax(1).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_class_mean_start_holds_no_single_film(noise):
    real = films((20, 30, 20))
    assert nearest_film(start(start="real", real=real), real).max() < 0.001
    assert nearest_film(start(start="class-mean", images_per_mean=8, start_noise=noise, real=real), real).min() > 0.2


def test_a_class_mean_is_the_mean_of_its_class_plus_noise_of_the_stated_size():
    real = films((20, 30, 20))
    all_films = normalized(torch.from_numpy(real.pixels), TRANSFORM)
    bare = start(start="class-mean", start_noise=0.0, real=real)
    for index, image in enumerate(bare.images):  # 64 images a mean are more than a class has
        assert torch.allclose(image, all_films[real.labels == index // 3].mean(0), atol=1e-5)
    noisy = start(start="class-mean", start_noise=0.3, real=real)
    assert float((noisy.images - bare.images).std()) == pytest.approx(0.3, rel=0.1)


def test_a_class_mean_of_fewer_images_than_the_class_has_differs_each_time():
    made = start(start="class-mean", images_per_mean=8, start_noise=0.0)
    assert not torch.allclose(made.images[0], made.images[1], atol=1e-3)


def test_class_noise_has_the_mean_and_covariance_of_its_class():
    real = films((70, 1100))
    all_films = normalized(torch.from_numpy(real.pixels), TRANSFORM).double().flatten(1)
    for index, made in enumerate(start(start="class-noise", ipc=60, real=real).images.double().flatten(1).split(60)):
        own = all_films[real.labels == index]
        sigma = own.std(0)
        assert float(((made.mean(0) - own.mean(0)) / sigma).square().mean()) == pytest.approx(1 / 60, rel=0.4)
        true, found = torch.cov(own.T), torch.cov(made.T)
        axis = torch.linalg.eigh(true).eigenvectors[:, -1]  # along which the class varies most
        assert float(axis @ found @ axis) == pytest.approx(float(axis @ true @ axis), rel=0.5)
        assert float(found.trace()) == pytest.approx(float(true.trace()), rel=0.2)


def test_no_film_weighs_much_in_class_noise():
    real = films((64, 64))
    own = normalized(torch.from_numpy(real.pixels), TRANSFORM).double().flatten(1)[real.labels == 0]
    made = start(start="class-noise", ipc=60, real=real).images[:60].double().flatten(1)
    weights = torch.linalg.lstsq(own.T, made.T).solution.T
    assert float((own.T @ weights.T - made.T).abs().max()) < 1e-5
    assert weights.sum(1).numpy() == pytest.approx(1, abs=1e-4)
    assert float(weights.square().mean()) ** 0.5 == pytest.approx(1 / 8, rel=0.1)


def test_noise_has_the_mean_and_spread_of_normalized_pixels():
    made = start(start="noise", ipc=50, real=films((50, 50)))
    assert float(made.images.mean()) == pytest.approx(0, abs=0.05)
    assert float(made.images.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "films_asked"),
    [({"ipc": 400, "formation": 8}, "51,200 films"), ({"ipc": 25_001}, "50,002 films"), ({"ipc": 24_000}, None)],
)
def test_a_set_that_no_package_can_hold_is_refused_before_any_work(settings, films_asked):
    asked = DistillSettings.model_validate(settings)
    if films_asked is None:
        return refuse_endless_sets(asked, films((20, 20)))
    with pytest.raises(RecipeError, match=f"{films_asked}, .* Lower distill"):
        refuse_endless_sets(asked, films((20, 20)))


def test_tiny_classes_are_refused_by_name():
    with pytest.raises(RecipeError, match=r"Class class 1 has 7 training image\(s\); .*'class-mean' need at least 8"):
        start(start="class-mean", real=films((20, 7)))
    with pytest.raises(
        RecipeError, match=r"Class class 1 has 2 training image\(s\); .*'real' need at least 3\. .* lower distill\.ipc"
    ):
        start(start="real", real=films((20, 2)))
    start(start="class-mean", real=films((20, 8)))
    with pytest.raises(
        RecipeError,
        match=r"Class class 1 has 63 .*'class-noise' need at least 64\. .* set distill\.start = 'class-mean'",
    ):
        start(start="class-noise", real=films((64, 63)))
    with pytest.raises(RecipeError, match=r"set distill\.start = 'noise' and lower distill\.ipc\."):
        start(start="class-noise", ipc=6, real=films((64, 5)))
    start(start="real", real=films((20, 3)))
    start(start="noise", real=films((20, 3)))


def packed(path, made: SyntheticSet) -> SyntheticSet:
    held = contents(
        images=made.intensities(),
        labels=made.labels(),
        inner_rate=made.inner_rate,
        class_names=made.class_names,
        transform=made.transform,
    )
    pack(path, **held)
    return SyntheticSet.from_package(open_package(path, allow_unsigned=True))


@pytest.mark.parametrize("soft", [False, True])
def test_a_set_comes_back_from_its_package_normalized_once(tmp_path, soft):
    made = start()
    if soft:
        made = dataclasses.replace(made, targets=made.targets * 0.7 + 0.1)
    found = packed(tmp_path / "toy.medistill", made)
    assert torch.allclose(found.images, made.images, atol=1e-5)
    assert torch.allclose(found.targets, made.targets)
    assert found.has_soft_labels == soft
    assert found.inner_rate == pytest.approx(made.inner_rate)
    assert (found.class_names, found.transform) == (made.class_names, made.transform)


def test_a_set_from_a_package_can_be_written_to(tmp_path):
    found = packed(tmp_path / "toy.medistill", start())
    found.images.zero_()
    found.targets.zero_()
    assert float(found.images.sum() + found.targets.sum()) == 0


def test_intensities_undo_the_transform_channel_by_channel():
    transform = Transform(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))
    images = torch.ones(2, 3, 4, 4)
    made = SyntheticSet(images, torch.eye(2), 0.1, ("a", "b"), transform)
    assert made.intensities().dtype == np.float32
    assert made.intensities()[0, :, 0, 0].tolist() == pytest.approx([0.6, 0.45, 1.3])


def test_real_pixels_come_back_as_intensities():
    real = films()
    made = dataclasses.replace(start(), images=normalized(torch.from_numpy(real.pixels), TRANSFORM))
    np.testing.assert_allclose(made.intensities(), real.pixels / 255, atol=1e-6)


def test_labels_are_stored_as_classes_when_hard_and_as_probabilities_when_soft():
    made = start()
    assert made.labels().dtype == np.int64
    assert made.labels().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    soft = dataclasses.replace(made, targets=made.targets * 0.7 + 0.1)
    assert soft.labels().dtype == np.float32
    np.testing.assert_allclose(soft.labels(), soft.targets.numpy())


def test_a_set_is_a_map_style_dataset():
    made = start()
    image, target = made[4]
    assert torch.equal(image, made.images[4])
    assert torch.equal(target, made.targets[4])
    images, targets = next(iter(torch.utils.data.DataLoader(made, batch_size=9)))
    assert torch.equal(images, made.images)
    assert torch.equal(targets, made.targets)


@pytest.mark.parametrize("classes", [2, 4])
def test_learned_labels_begin_with_19_parts_of_20_on_their_class(classes):
    started = trusting_logits(torch.eye(classes)).softmax(1)
    assert torch.allclose(started.diagonal(), torch.tensor(0.95))
    assert torch.allclose(started.sum(1), torch.tensor(1.0))


def test_a_start_may_have_more_images_of_common_classes():
    settings = DistillSettings(ipc=3, ipc_power=1.0, start="class-mean", images_per_mean=8)
    start = starting_set(settings, films((32, 8)), TRANSFORM, seed=0)
    assert start.targets.argmax(1).tolist() == [0, 0, 0, 0, 1, 1]
