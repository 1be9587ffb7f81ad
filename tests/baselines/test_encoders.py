import pytest
import torch

from medistill.baselines import encoders
from medistill.baselines.encoders import PRETEXTS, Encoder, Lesson, learn_encoders
from medistill.baselines.pretraining import Pretext, pretrain
from medistill.errors import MatchingError
from medistill.jobs import Silence
from medistill.networks import build
from toys import TRANSFORM, PowerCut, Watch, films, recipe

QUICK = {"pretrain.steps": 4, "pretrain.batch_size": 8}
FEW, ALL = torch.from_numpy(films((3, 3)).pixels), torch.from_numpy(films().pixels)
IMAGES = {"budget": FEW, "all": ALL}
BYOL, SIMSIAM = Lesson("byol", "convnet", "all"), Lesson("simsiam", "convnet", "all")


def learn(folder, *lessons, changes=None, images=IMAGES, transform=TRANSFORM, watch=None):
    return learn_encoders(recipe(QUICK | (changes or {})), lessons, images, transform, folder, 1, watch or Silence())


def alike(one: Encoder, other: Encoder) -> bool:
    return torch.equal(one.params, other.params) and one.epochs == other.epochs


class Halves(Pretext):
    """After every step the encoder is all halves."""

    def __init__(self, encoder, image):
        super().__init__()
        self.encoder = encoder

    def loss(self, first, second, draw):
        return self.encoder(first).square().mean()

    @torch.no_grad()
    def follow(self, progress):
        for parameter in self.encoder.parameters():
            parameter.fill_(0.5)


@pytest.mark.parametrize("method", PRETEXTS)
def test_an_encoder_is_all_of_its_network_but_the_classifier(tmp_path, method):
    lesson = Lesson(method, "vit" if method == "mae" else "convnet", "all")
    encoder = learn(tmp_path, lesson)[lesson]
    toy = recipe()
    network = build(toy.network_as(lesson.architecture), 1, 8, 2)
    assert len(encoder.params) == network.size - network.head_size
    assert [epoch.steps for epoch in encoder.epochs] == [3, 3]  # 24 films by 8; four steps are two whole epochs
    start = network.initial(toy.seed_for("pretrain/start"))[: -network.head_size]
    assert not torch.equal(encoder.params, start)
    assert torch.allclose(encoder.params, start, atol=0.05)  # a few steps of AdamW lead no further


def test_the_encoder_that_learned_is_the_one_returned(tmp_path, monkeypatch):
    monkeypatch.setitem(encoders.PRETEXTS, "halves", Halves)
    lesson = Lesson("halves", "convnet", "all")
    assert bool((learn(tmp_path, lesson)[lesson].params == 0.5).all())


def test_an_encoder_learns_as_the_loop_teaches_it_from_the_images_of_its_name(tmp_path):
    lesson, toy = Lesson("mae", "vit", "budget"), recipe(QUICK)

    def seed_for(purpose: str) -> int:
        return toy.seed_for(f"pretrain/{purpose}")

    network = build(toy.network_as("vit"), 1, 8, 2)
    module = network.module_at(network.initial(seed_for("start")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("heads"))
        pretext = PRETEXTS["mae"](module.features, (1, 8, 8))
    epochs = tuple(pretrain(pretext, FEW, TRANSFORM, toy.pretrain, seed_for))
    expected = Encoder(network.params_of(module)[: -network.head_size], epochs)
    assert alike(learn(tmp_path, lesson)[lesson], expected)


def test_every_lesson_gets_its_own_encoder_in_whatever_company(tmp_path):
    lessons = [Lesson(method, "convnet", name) for method in ("byol", "simsiam") for name in IMAGES]
    together = learn(tmp_path / "together", *lessons)
    assert list(together) == lessons
    for lesson in lessons:
        assert alike(learn(tmp_path / "alone", lesson)[lesson], together[lesson])
    assert len({encoder.params.sum().item() for encoder in together.values()}) == len(lessons)


def test_what_is_kept_is_read_and_only_the_rest_learned(tmp_path):
    first = learn(tmp_path, BYOL)[BYOL]
    watch = Watch()
    both = learn(tmp_path, BYOL, SIMSIAM, watch=watch)
    assert watch.begun == [("pre-training", 12, 6)]  # six steps each
    assert watch.advanced == 6
    assert alike(both[BYOL], first)
    again = Watch()
    for lesson, encoder in learn(tmp_path, BYOL, SIMSIAM, watch=again).items():
        assert alike(encoder, both[lesson])
    assert again.advanced == 0


def test_an_interruption_costs_no_more_than_the_encoder_that_was_learning(tmp_path):
    with pytest.raises(PowerCut):
        learn(tmp_path, BYOL, SIMSIAM, watch=Watch(power_fails_after=9))
    watch = Watch()
    found = learn(tmp_path, BYOL, SIMSIAM, watch=watch)
    assert watch.advanced == 6
    whole = learn(tmp_path / "uninterrupted", BYOL, SIMSIAM)
    assert all(alike(found[lesson], whole[lesson]) for lesson in whole)


def test_a_damaged_file_is_learned_again(tmp_path):
    first = learn(tmp_path, BYOL)[BYOL]
    (path,) = tmp_path.glob("byol-convnet-all-*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    watch = Watch()
    assert alike(learn(tmp_path, BYOL, watch=watch)[BYOL], first)
    assert watch.advanced == 6


@pytest.mark.parametrize(
    "other",
    [
        {"changes": {"seed": 4}},
        {"changes": {"pretrain.rate": 0.002}},
        {"changes": {"network.width": 8}},
        {"images": {"all": 255 - ALL}},
        {"transform": TRANSFORM.model_copy(update={"mean": (0.5,)})},
    ],
)
def test_what_decides_an_encoder_decides_where_it_is_kept(tmp_path, other):
    first = learn(tmp_path, BYOL)[BYOL]
    watch = Watch()
    assert not alike(learn(tmp_path, BYOL, watch=watch, **other)[BYOL], first)
    assert watch.advanced == 6


def test_settings_of_distillation_and_of_the_evaluation_ask_for_the_same_encoder(tmp_path):
    first = learn(tmp_path, BYOL)[BYOL]
    watch = Watch()
    changes = {"distill.ipc": 1, "evaluate.steps": 5, "teachers.rate": 0.5, "augment.flip": True}
    assert alike(learn(tmp_path, BYOL, changes=changes, watch=watch)[BYOL], first)
    assert watch.advanced == 0


def test_an_encoder_does_not_depend_on_what_was_drawn_before(tmp_path):
    with torch.random.fork_rng(devices=[]):
        one, other = (torch.manual_seed(seed) and learn(tmp_path / str(seed), BYOL)[BYOL] for seed in (1, 2))
    assert alike(one, other)


def test_an_encoder_that_diverges_is_named_and_not_kept(tmp_path):
    with pytest.raises(MatchingError, match=r"Pre-training diverged in epoch \d+ at rate 1e\+30"):
        learn(tmp_path, Lesson("mae", "vit", "all"), changes={"pretrain.rate": 1e30, "pretrain.steps": 60})
    assert not list(tmp_path.iterdir())
