"""What a study asks."""

from dataclasses import dataclass

from medistill.errors import RecipeError
from medistill.evidence import Scenario
from medistill.files import digest


@dataclass(frozen=True)
class Inquiry:
    """What is to be found out.

    Attributes:
        own: how many images a class hospital B has itself, one size after another.
        rounds: after how many rounds the federation is judged; empty leaves it out.
        seeds: how many repetitions, the recipe's seed first.
        skewed: also let A and C see different classes.
        shifted: a source of images of another kind; hospital B's are then also taken from there.
        final: judge on the test split, which is recorded, instead of on validation.
    """

    own: tuple[int, ...] = (5, 10, 20, 50)
    rounds: tuple[int, ...] = (1, 10, 100)
    seeds: int = 3
    skewed: bool = True
    shifted: str | None = None
    final: bool = False

    def __post_init__(self) -> None:
        for name, numbers in (("own", self.own), ("rounds", self.rounds)):
            if any(number < 1 for number in numbers) or list(numbers) != sorted(set(numbers)):
                said = ",".join(map(str, numbers))
                raise RecipeError(f"--{name} {said}: expected rising numbers of 1 or more, for instance 5,10,20.")
        if not self.own:
            raise RecipeError("--own : no number was given; expected some, for instance 5,10,20,50.")

    @property
    def of_the_test_split(self) -> str:
        """What a final study asks of the test split, in short."""
        return digest(repr((self.own, self.rounds, self.seeds, self.scenarios)).encode())[:12]

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        """How the images lie, one way after another."""
        asked: dict[Scenario, bool] = {
            "natural": True,
            "skewed": self.skewed,
            "shifted": self.shifted is not None,
        }
        return tuple(name for name, wanted in asked.items() if wanted)
