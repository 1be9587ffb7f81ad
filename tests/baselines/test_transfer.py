import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import medistill.baselines.transfer as transfer
from medistill.baselines.transfer import gratings, learn_to_transfer, learned_elsewhere
from medistill.errors import MatchingError
from medistill.jobs import Silence
from medistill.networks import Timm, build
from medistill.report.words import plain_name
from medistill.synthetic import normalized
from toys import Watch, films, recipe, write_npz

CELLS = Path(__file__).parents[2] / "benchmarks/cells"


@pytest.fixture(autouse=True)
def few_gratings(monkeypatch):
    monkeypatch.setattr(transfer, "_GRATINGS", 400)


def learn(folder, source=None, changes=None, like=None, watch=None):
    toy = recipe(changes)
    images = films() if like is None else like
    return learn_to_transfer(toy, "convnet", source and str(source), images, folder / "kept", 1, watch or Silence())


def test_gratings_are_eight_kinds_equally_often_by_direction_and_wavelength():
    images = gratings(32, 1, seed=0)
    assert images.counts.tolist() == [50] * 8
    assert len(images.class_names) == 8
    assert (images.pixels.shape, images.pixels.dtype) == ((400, 1, 32, 32), np.uint8)
    is_short, direction = images.labels < 4, images.labels % 4
    waves = images.pixels[:, 0] - images.pixels.mean((2, 3))[..., None]
    power = np.abs(np.fft.fftshift(np.fft.fft2(waves), axes=(1, 2))) ** 2
    power[power < power.max((1, 2), keepdims=True) / 4] = 0  # noise
    y, x = np.meshgrid(np.arange(-16, 16), np.arange(-16, 16), indexing="ij")
    frequency = (power * np.hypot(x, y)).sum((1, 2)) / power.sum((1, 2))
    assert frequency[is_short].min() > 4.5 > frequency[~is_short].max()  # waves a side: about 1 / 0.15 and 1 / 0.4
    turned = np.angle((power * np.exp(2j * np.arctan2(y, x))).sum((1, 2))) / 2  # a wave looks alike from both sides
    off = (turned - direction * np.pi / 4 + np.pi / 2) % np.pi - np.pi / 2
    assert (np.abs(off) < np.pi / 8).mean() > 0.95  # nearer to its own direction than to the next one


def test_gratings_are_drawn_by_their_seed_and_grey_in_every_channel():
    grey, color = gratings(8, 1, seed=1), gratings(8, 3, seed=1)
    assert np.array_equal(gratings(8, 1, seed=1).pixels, grey.pixels)
    assert not np.array_equal(gratings(8, 1, seed=2).pixels, grey.pixels)
    assert np.array_equal(color.pixels, grey.pixels.repeat(3, axis=1))


def test_what_is_learned_is_all_but_the_classifier_and_tells_the_images_apart(tmp_path):
    """By the nearest class mean of features, which a fresh network's features do worse."""
    changes = {"network.width": 16, "evaluate.full_epochs": 12, "evaluate.rates": [0.1]}
    learned = learn(tmp_path, changes=changes)
    assert learned.images == "gratings drawn here"
    toy = recipe(changes)
    network = build(toy.network, 1, 8, 2)
    start = network.initial(0)
    assert len(learned.params) == network.size - network.head_size

    known, asked = gratings(8, 1, seed=10), gratings(8, 1, seed=11)

    def share_found(body):
        params = torch.cat([body, start[-network.head_size :]])
        shown = [normalized(torch.from_numpy(each.pixels), known.transform()) for each in (known, asked)]
        with torch.no_grad():
            seen, others = (network.features(params, each).numpy() for each in shown)
        means = np.stack([seen[known.labels == index].mean(0) for index in range(8)])
        return (((others[:, None] - means) ** 2).sum(2).argmin(1) == asked.labels).mean()

    assert share_found(learned.params) > share_found(start[: -network.head_size]) + 0.1


def test_images_of_the_task_decide_nothing_but_size_and_channels(tmp_path):
    one = learn(tmp_path / "a")
    other = learn(tmp_path / "b", like=films((3, 3, 3), seed=5))
    assert torch.equal(one.params, other.params)
    color = dataclasses.replace(films(), pixels=films().pixels.repeat(3, axis=1))
    network = build(recipe().network, 3, 8, 2)
    assert len(learn(tmp_path / "c", like=color).params) == network.size - network.head_size > len(one.params)


def test_the_images_that_are_named_are_learned_from_split_by_split(tmp_path):
    source = write_npz(tmp_path / "films.npz")
    whole, train, test = (learn(tmp_path, f"{source}{split}") for split in ("", "#train", "#test"))
    assert whole.images == train.images == test.images == "films.npz"
    assert torch.equal(whole.params, train.params)
    assert not torch.equal(test.params, train.params)
    assert not torch.equal(learn(tmp_path).params, train.params)


def test_the_rate_is_the_middle_one_of_the_search(tmp_path):
    source = write_npz(tmp_path / "films.npz")
    asked = learn(tmp_path / "a", source, {"evaluate.rates": [0.3, 0.001, 0.03]})
    assert torch.equal(asked.params, learn(tmp_path / "b", source, {"evaluate.rates": [0.03]}).params)
    assert not torch.equal(asked.params, learn(tmp_path / "c", source, {"evaluate.rates": [0.3]}).params)


def test_what_was_learned_is_kept_and_another_seed_learns_anew(tmp_path):
    source = write_npz(tmp_path / "films.npz")
    first, again, other = Watch(), Watch(), Watch()
    learned = learn(tmp_path, source, watch=first)
    assert torch.equal(learn(tmp_path, source, watch=again).params, learned.params)
    assert not torch.equal(learn(tmp_path, source, {"seed": 4}, watch=other).params, learned.params)
    assert first.begun == [("network on films.npz", 48, 0)]  # 24 films, twice
    assert [watch.advanced for watch in (first, again, other)] == [48, 0, 48]


def test_a_rate_that_diverges_is_named_with_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "train_all", lambda bench, arms, jobs, watch: dict.fromkeys(jobs))
    with pytest.raises(MatchingError, match=r"gratings drawn here: training diverged at rate 0\.03\. Lower evaluate"):
        learn(tmp_path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [("hub", "resnet18, timm's weights"), ("/data/secret/films.safetensors", "resnet18, films.safetensors")],
)
def test_weights_of_others_are_named_by_model_and_file_without_its_folder(monkeypatch, weights, words):
    asked = []

    def params(model, channels, given):
        asked.append((model.name, channels, given))
        return torch.ones(3)

    monkeypatch.setattr(transfer, "learned_params", params)
    learned = learned_elsewhere(Timm("resnet18"), weights, films())
    assert learned.images == words
    assert torch.equal(learned.params, torch.ones(3))
    assert asked == [("resnet18", 1, weights)]


def test_cifars_images_are_called_natural_wherever_they_lie(tmp_path):
    source = write_npz(tmp_path / "cifar10_jpeg.npz")
    for given in (source, f"{source}#train"):
        row = f"transfer ({learn(tmp_path, given).images})"
        assert plain_name(row) == "transfer, fine-tuned, from natural images (CIFAR-10)"


def test_rows_that_were_kept_have_the_names_of_new_ones(tmp_path):
    """Or a seed that is added to the benchmark would begin a line of its own."""
    learned = learn(tmp_path, write_npz(tmp_path / "cifar10_jpeg.npz"))
    paths = sorted(CELLS.glob("transfer-*.json"))
    kept = {finding["name"] for path in paths for finding in json.loads(path.read_text())["findings"]}
    assert kept == {f"transfer ({learned.images})", f"transfer-linear ({learned.images})"}
    assert {plain_name(name) for name in kept} == {
        "transfer, fine-tuned, from natural images (CIFAR-10)",
        "transfer, linear probe, from natural images (CIFAR-10)",
    }
