import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("seed", [1, 2])
def test_no_mutant_is_taken_for_whole_or_takes_long_or_writes_anything(seed: int) -> None:
    """In a process of its own, whose memory is then its own too."""
    program = Path(__file__).with_name("mutants.py")
    subprocess.run([sys.executable, program, "--count", "2000", "--seed", str(seed)], check=True)
