import math

import pytest
import torch
from torch import Tensor

from medistill.augment import augment, draw_augmentation
from medistill.matching.adjoint import Gradient, InnerStep, trajectory_gradient
from medistill.matching.pruning import kept_parameters
from medistill.matching.trajectory import trajectory_distance
from medistill.networks import Alignment, FlatNetwork, build, cross_entropy
from medistill.networks.convnet import ConvNet, convnet
from medistill.networks.kernels import EAGER
from medistill.recipe import AugmentSettings, NetworkSettings

CLASSES = 3


class Problem:
    """A small inner loop in float64, its batches of different sizes and with repeats."""

    def __init__(self, architecture: str = "convnet", augmented: bool = True, steps: int = 3) -> None:
        settings = NetworkSettings(architecture=architecture, width=4, depth=2)  # type: ignore[arg-type]
        self.network: FlatNetwork = build(settings, 1, 8, CLASSES)
        generator = torch.Generator().manual_seed(0)
        self.start = self.network.initial(1).double()
        self.target = self.start + 0.05 * torch.randn(self.network.size, generator=generator).double()
        self.images = torch.randn(6, 1, 8, 8, generator=generator).double()
        self.targets = torch.rand(6, CLASSES, generator=generator).double().softmax(1)
        self.log_rate = torch.tensor(math.log(0.05), dtype=torch.float64)
        how = AugmentSettings(flip=True, cutout=0.3) if augmented else None
        batches = [torch.tensor([0, 3, 4, 1]), torch.arange(6), torch.tensor([5, 2, 2])]
        self.steps = [
            InnerStep(batch := batches[j % 3], how and draw_augmentation(how, len(batch), seed=j)) for j in range(steps)
        ]

    def objective(self, end: Tensor) -> Tensor:
        return trajectory_distance(end, self.start, self.target)

    def adjoint(
        self,
        micro_batch: int | None = None,
        network: FlatNetwork | None = None,
        keep_bytes: int = 0,
        stops: tuple[int, ...] = (),
    ) -> Gradient:
        return trajectory_gradient(
            network or self.network,
            self.start,
            self.images,
            self.targets,
            self.log_rate,
            self.steps,
            self.objective,
            micro_batch,
            keep_bytes,
            stops,
        )

    def student(self, images: Tensor, targets: Tensor, log_rate: Tensor) -> Tensor:
        """Where the inner loop, as one graph, ends."""
        return self.walk(images, targets, log_rate)[-1]

    def walk(self, images: Tensor, targets: Tensor, log_rate: Tensor) -> list[Tensor]:
        """The inner loop as one graph, the student after every step: what the adjoint must agree with."""
        params = self.start.detach().requires_grad_()
        path = []
        for step in self.steps:
            logits = self.network(params, augment(images[step.indices], step.draw))
            loss = cross_entropy(logits, targets[step.indices], len(step.indices))
            (slope,) = torch.autograd.grad(loss, params, create_graph=True)
            params = params - log_rate.exp() * slope
            path.append(params)
        return path

    def unrolled(self) -> tuple[Tensor, ...]:
        leaves = [leaf.detach().requires_grad_() for leaf in (self.images, self.targets, self.log_rate)]
        return torch.autograd.grad(self.objective(self.student(*leaves)), leaves)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().norm() / expected.detach().norm())


@pytest.mark.parametrize(
    ("architecture", "augmented", "micro_batch"),
    [
        *(("convnet", augmented, micro_batch) for augmented in (False, True) for micro_batch in (None, 1, 4)),
        ("resnet18", False, None),
        ("resnet18", True, 4),
        ("vgg11", True, 4),
        ("vit", True, 4),
    ],
)
def test_the_adjoint_equals_full_unrolling(architecture: str, augmented: bool, micro_batch: int | None) -> None:
    problem = Problem(architecture, augmented)
    found = problem.adjoint(micro_batch)
    for ours, theirs in zip((found.images, found.targets, found.log_rate), problem.unrolled(), strict=True):
        assert relative_error(ours, theirs) < 1e-9


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("micro_batch", [None, 1, 4])
@pytest.mark.parametrize("keep_bytes", [0, 20_000, 10**9])
def test_so_does_the_adjoint_of_the_written_convnet(augmented: bool, micro_batch: int | None, keep_bytes: int) -> None:
    problem = Problem(augmented=augmented)
    written = ConvNet(convnet(NetworkSettings(width=4, depth=2), 1, 8, CLASSES), EAGER)
    found = problem.adjoint(micro_batch, written, keep_bytes)
    for ours, theirs in zip((found.images, found.targets, found.log_rate), problem.unrolled(), strict=True):
        assert relative_error(ours, theirs) < 1e-9


def test_steps_keep_their_activations_as_long_as_they_fit() -> None:
    problem, asked = Problem(), []
    written = ConvNet(convnet(NetworkSettings(width=4, depth=2), 1, 8, CLASSES), EAGER)

    class Watched(ConvNet):
        def alignment(self, *place: object) -> Alignment:  # type: ignore[override]
            asked.append(place[-1] is not None)
            return written.alignment(*place)  # type: ignore[arg-type]

    watched = Watched(convnet(NetworkSettings(width=4, depth=2), 1, 8, CLASSES), EAGER)
    one_step = watched.slope(problem.start, problem.images, problem.targets, 6, keep=True).kept_bytes
    problem.adjoint(None, watched, 2 * one_step)
    assert asked == [False, True, True]  # walking back; the first two of three steps are kept


def test_the_value_and_the_end_are_those_of_the_student() -> None:
    problem = Problem()
    found = problem.adjoint()
    end = problem.student(problem.images, problem.targets, problem.log_rate)
    assert relative_error(found.end, end) < 1e-12
    assert float(found.value) == pytest.approx(float(problem.objective(end).detach()), rel=1e-12)


def test_the_gradient_agrees_with_finite_differences_to_pixels_labels_and_rate() -> None:
    problem = Problem(steps=2)
    found = problem.adjoint()

    def value(images: Tensor, targets: Tensor, log_rate: Tensor) -> float:
        return float(problem.objective(problem.student(images, targets, log_rate)).detach())

    generator = torch.Generator().manual_seed(5)
    point = (problem.images, problem.targets, problem.log_rate)
    for index, slope in enumerate((found.images, found.targets, found.log_rate)):
        direction = torch.randn(point[index].shape, generator=generator).double()
        step = 1e-5
        ahead, behind = (
            value(*(x + sign * step * direction if i == index else x for i, x in enumerate(point))) for sign in (1, -1)
        )
        assert (ahead - behind) / (2 * step) == pytest.approx(float((slope * direction).sum()), rel=1e-5)


def test_a_mask_fixed_by_pruning_enters_the_gradient_as_a_constant() -> None:
    problem = Problem()

    def pruned(end: Tensor) -> Tensor:
        kept = kept_parameters(end, problem.start, problem.target, 0.9, "unsigned")
        return trajectory_distance(end, problem.start, problem.target, kept)

    problem.objective = pruned  # type: ignore[method-assign]
    for ours, theirs in zip((problem.adjoint().images,), problem.unrolled()[:1], strict=True):
        assert relative_error(ours, theirs) < 1e-9


def test_images_outside_every_batch_get_no_gradient() -> None:
    problem = Problem(steps=1)
    found = problem.adjoint()
    assert found.images[[2, 5]].abs().max() == 0
    assert found.images[[0, 1, 3, 4]].abs().amin(0).max() > 0


@pytest.mark.parametrize("micro_batch", [None, 4])
@pytest.mark.parametrize("stops", [(1,), (2,), (1, 3)])
def test_an_objective_may_look_at_the_student_on_its_way(stops: tuple[int, ...], micro_batch: int | None) -> None:
    problem = Problem(steps=4)

    def objective(*seen: Tensor) -> Tensor:
        assert len(seen) == len(stops) + 1
        weights = range(1, len(seen) + 1)
        return sum(
            weight * (params - problem.target).square().sum() for weight, params in zip(weights, seen, strict=True)
        )

    problem.objective = objective  # type: ignore[method-assign]
    found = problem.adjoint(micro_batch, stops=stops)
    leaves = [leaf.detach().requires_grad_() for leaf in (problem.images, problem.targets, problem.log_rate)]
    path = problem.walk(*leaves)
    value = objective(*(path[stop - 1] for stop in stops), path[-1])
    assert float(found.value) == pytest.approx(float(value.detach()), rel=1e-12)
    for ours, theirs in zip(
        (found.images, found.targets, found.log_rate), torch.autograd.grad(value, leaves), strict=True
    ):
        assert relative_error(ours, theirs) < 1e-9


def test_each_steps_own_share_is_the_gradient_with_the_path_held_fixed() -> None:
    problem = Problem()
    problem_place = (problem.start, problem.images, problem.targets, problem.log_rate, problem.steps, problem.objective)
    found = trajectory_gradient(problem.network, *problem_place, own_share=True)
    images = problem.images.detach().requires_grad_()
    with torch.no_grad():
        path = [problem.start]
    for step in problem.steps:
        params = path[-1].detach().requires_grad_()
        loss = cross_entropy(
            problem.network(params, augment(problem.images[step.indices], step.draw)),
            problem.targets[step.indices],
            len(step.indices),
        )
        path.append(path[-1] - problem.log_rate.exp() * torch.autograd.grad(loss, params)[0])
    end = path[-1].detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(problem.objective(end), end)
    total = torch.zeros_like(images)
    for step, here in zip(problem.steps, path[:-1], strict=True):
        params = here.detach().requires_grad_()
        logits = problem.network(params, augment(images[step.indices], step.draw))
        loss = cross_entropy(logits, problem.targets[step.indices], len(step.indices))
        (slope,) = torch.autograd.grad(loss, params, create_graph=True)
        total -= problem.log_rate.exp() * torch.autograd.grad(slope @ cotangent, images)[0]
    assert relative_error(found.images, total) < 1e-9
    assert relative_error(found.images, problem.adjoint().images) > 1e-3
