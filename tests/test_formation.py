import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from medistill.errors import RecipeError
from medistill.formation import fold, unfold
from medistill.jobs import Silence
from medistill.package import open_package
from medistill.pipeline import open_run, run
from medistill.receive import train_on
from medistill.recipe import DistillSettings
from medistill.sources import read_part
from medistill.synthetic import SyntheticSet, starting_set
from toys import TRANSFORM, films, recipe, write_npz


def test_films_lie_row_by_row_and_come_back_enlarged():
    image = torch.arange(36.0).view(1, 1, 6, 6)
    seen = unfold(image, 3)
    assert seen.shape == (9, 1, 6, 6)
    for number, film in enumerate(seen):
        row, column = divmod(number, 3)
        small = image[0, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        torch.testing.assert_close(film[0, 0, 0], small[0, 0])
        torch.testing.assert_close(film[0, -1, -1], small[-1, -1])
        assert film.mean() == pytest.approx(float(small.mean()))


def test_a_folded_film_is_the_mean_of_its_squares_and_unfolds_to_itself_where_it_is_flat():
    draw = np.random.default_rng(0)
    four = torch.from_numpy(draw.standard_normal((8, 2, 4, 4)))
    folded = fold(four, 2)
    assert folded.shape == (2, 2, 4, 4)
    for number in range(8):
        image, place = divmod(number, 4)
        row, column = divmod(place, 2)
        corner = folded[image, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = four[number].reshape(2, 2, 2, 2, 2).mean((2, 4))
        torch.testing.assert_close(corner, expected)
    flat = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    torch.testing.assert_close(unfold(fold(flat, 2), 2), flat)


def test_cosine_films_have_the_spectrum_of_the_small_ones_and_nothing_beyond():
    draw = np.random.default_rng(1)
    image = torch.from_numpy(draw.standard_normal((1, 2, 8, 12)))
    seen = unfold(image, 2, "cosine").numpy()
    assert seen.shape == (4, 2, 8, 12)
    spectrum, small = (dctn(films, axes=(-2, -1), norm="ortho") for films in (seen[0], image[0, :, :4, :6].numpy()))
    np.testing.assert_allclose(spectrum[:, :4, :6], 2 * small, atol=1e-12)
    spectrum[:, :4, :6] = 0
    assert np.abs(spectrum).max() < 1e-12
    assert seen[0].mean() == pytest.approx(float(image[0, :, :4, :6].mean()))


def test_cosine_films_are_reduced_to_their_lowest_frequencies():
    draw = np.random.default_rng(2)
    images = torch.from_numpy(draw.standard_normal((2, 1, 6, 6)))
    seen = unfold(images, 3, "cosine")
    torch.testing.assert_close(fold(seen, 3, "cosine"), images)
    spectrum = dctn(draw.standard_normal((9, 1, 6, 6)), axes=(-2, -1), norm="ortho")
    rough = torch.from_numpy(idctn(spectrum, axes=(-2, -1), norm="ortho"))
    spectrum[..., 2:, :] = spectrum[..., 2:] = 0
    smooth = idctn(spectrum, axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(unfold(fold(rough, 3, "cosine"), 3, "cosine").numpy(), smooth, atol=1e-12)


def test_a_formation_of_one_changes_nothing():
    images = torch.randn(3, 1, 4, 4)
    assert unfold(images, 1) is images
    assert unfold(images, 1, "cosine") is images
    assert fold(images, 1) is images


def test_a_start_has_the_films_of_a_larger_one_in_fewer_images():
    def start(**settings: object) -> SyntheticSet:
        return starting_set(
            DistillSettings(start="class-mean", images_per_mean=8, **settings), films(), TRANSFORM, seed=0
        )

    folded, plain = start(ipc=2, formation=2), start(ipc=8)
    assert len(folded) == 4
    torch.testing.assert_close(folded.images, fold(plain.images, 2))
    unfolded = folded.unfolded()
    assert len(unfolded) == 16
    assert torch.equal(unfolded.targets, plain.targets)


def test_a_formation_that_does_not_divide_the_image_is_refused():
    with pytest.raises(RecipeError, match=r"distill\.formation = 3 does not divide images of 8x8"):
        starting_set(DistillSettings(ipc=1, formation=3, images_per_mean=8), films(), TRANSFORM, seed=0)


@pytest.mark.parametrize("enlarging", ["bilinear", "cosine"])
def test_a_set_of_several_films_an_image_goes_all_the_way_to_the_receiver(tmp_path, enlarging):
    settings = {
        "distill.formation": 2,
        "distill.enlarging": enlarging,
        "distill.learn_labels": True,
        "machine.processes": 1,
    }
    toy = recipe(settings | {"source.path": str(write_npz(tmp_path / "films.npz"))})
    products = run(open_run(toy, tmp_path / "out"), Silence())
    package = open_package(products.package, allow_unsigned=True)
    assert len(package.images) == 4
    assert (package.manifest.training.formation, package.manifest.training.enlarging) == (2, enlarging)
    synthetic = SyntheticSet.from_package(package)
    assert (len(synthetic), len(synthetic.unfolded()), synthetic.enlarging) == (4, 16, enlarging)
    judged = read_part(f"{tmp_path / 'films.npz'}#test", 8, 1)
    row = train_on([package], judged, "test", 1, 0, 1, Silence()).row
    assert row.images == 4
