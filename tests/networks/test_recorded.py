import pytest
import torch

from medistill.networks import build
from medistill.networks.recorded import RecordedConvNet
from medistill.recipe import MachineSettings, NetworkSettings, Precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="recordings are of GPUs, and torch finds none")


@pytest.mark.filterwarnings("ignore")  # the compiler's own affair
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_a_recording_gives_what_was_recorded_for_every_batch(precision: Precision, error: float) -> None:
    """Also for arguments, and after batches of another size, that it has not seen; libraries add on a GPU in no fixed
    order, so last bits differ."""
    recorded, plain = (
        build(
            NetworkSettings(width=16, depth=3),
            *(1, 16, 3),
            MachineSettings(device="cuda", compiles=True, precision=precision, graphs=graphs),
        )
        for graphs in (True, False)
    )
    assert isinstance(recorded, RecordedConvNet)
    assert not isinstance(plain, RecordedConvNet)
    for seed, count in enumerate((6, 6, 4, 6, 4)):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(count, 1, 16, 16, generator=generator).cuda()
        targets = torch.eye(3)[torch.arange(count) % 3].cuda()
        params, direction = (torch.randn(plain.size, generator=generator).cuda() / 8 for _ in range(2))
        given = (params, images, targets, count)
        pairs = [(recorded.slope(*given).params, plain.slope(*given).params)]
        found = [network.alignment(*given, direction) for network in (recorded, plain)]
        pairs += [tuple(getattr(each, name) for each in found) for name in ("value", "params", "images", "targets")]
        assert all((one - other).norm() < error * other.norm() for one, other in pairs)
