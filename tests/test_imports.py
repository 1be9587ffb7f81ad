import subprocess
import sys

import pytest


@pytest.mark.parametrize("room", ["", ".keys", ".package", ".report", ".cli"])
def test_the_receivers_half_imports_no_torch(room):
    heavy = ("torch", "sklearn", "jaxtyping", "matplotlib")
    code = f"import sys, medistill{room}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_opening_is_found_at_the_top_without_torch():
    code = "import sys, medistill; medistill.open_package; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_top_offers_nothing_else():
    import medistill

    with pytest.raises(AttributeError, match="has no attribute 'distill_everything'"):
        _ = medistill.distill_everything
    assert set(medistill.__all__) == {"__version__", "open_package"}
