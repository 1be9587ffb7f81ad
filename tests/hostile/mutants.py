"""Packages that chance has damaged, or that a forger made whole again, by the hundred thousand.

    python tests/hostile/mutants.py --count 100000

Every mutant is opened, and must be refused by a PackageError; a forged one, whose digests follow from what was changed,
may open instead. Printed are how many were refused as what, the longest time and the most memory that one took.
"""

import argparse
import collections
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import minisign
import rfc8785

from medistill.errors import PackageError
from medistill.files import digest
from medistill.package import archive, open_package, sign_package

GOLDEN = (Path(__file__).parents[1] / "package" / "golden.bin").read_bytes()
_MOST_SECONDS, _MOST_BYTES = 2.0, 512 * 10**6


def flipped(content: bytes, draw: random.Random) -> bytes:
    """One to eight bits are others."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    """The end is missing, or a piece from the middle."""
    begin = draw.randrange(len(content))
    end = len(content) if draw.random() < 0.5 else draw.randint(begin + 1, len(content))
    return content[:begin] + content[end:]


def inserted(content: bytes, draw: random.Random) -> bytes:
    """Bytes are added somewhere, random ones or some that were there already."""
    at, count = draw.randint(0, len(content)), draw.randint(1, 300)
    source = draw.randrange(len(content))
    return content[:at] + (draw.randbytes(count) or content[source : source + count]) + content[at:]


def overwritten(content: bytes, draw: random.Random) -> bytes:
    """A number somewhere is an extreme one: sizes, counts and offsets are numbers."""
    value = draw.choice([b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00"])
    at = draw.randrange(len(content) - 4)
    return content[:at] + value + content[at + 4 :]


def spliced(content: bytes, draw: random.Random) -> bytes:
    """Entries of the zip in another order, twice, left out, or under another's name; the rest is flawless."""
    entries = list(archive.parse(content).items())
    one, other = draw.sample(range(len(entries)), 2)
    if draw.random() < 0.5:
        (name, first), (second_name, second) = entries[one], entries[other]
        entries[one], entries[other] = (name, second), (second_name, first)
    else:
        entries.insert(draw.randrange(len(entries)), entries.pop(one) if draw.random() < 0.5 else entries[one])
    bodies = [archive.build({name: body}) for name, body in entries]
    local = b"".join(body[: body.index(b"PK\x01\x02")] for body in bodies if b"PK\x01\x02" in body)
    return local + content[content.rindex(b"PK\x01\x02") :]


def forged(content: bytes, draw: random.Random) -> bytes:
    """A file in it is damaged, and manifest, digests and zip follow from what it is now."""
    files = archive.parse(content)
    said = json.loads(files.pop(archive.MANIFEST))
    path = draw.choice(sorted(files))
    files[path] = draw.choice([flipped, cut, inserted])(files[path], draw)
    del said["package_id"]
    said["files"] = [{"path": name, "bytes": len(files[name]), "sha256": digest(files[name])} for name in sorted(files)]
    manifest = rfc8785.dumps(said | {"package_id": digest(rfc8785.dumps(said))})
    return archive.build(files | {archive.MANIFEST: manifest})


BY_CHANCE: tuple[Callable[[bytes, random.Random], bytes], ...] = (flipped, cut, inserted, overwritten, spliced)


def _signed(folder: Path) -> bytes:
    """The same package, signed with a key that nobody will have again."""
    path = folder / "mutant.medistill"
    path.write_bytes(GOLDEN)
    sign_package(path, "nobody", minisign.KeyPair.generate().secret_key, date(2026, 1, 1))
    return path.read_bytes()


def judged(content: bytes, folder: Path, may_open: bool) -> tuple[str, float]:
    """How a mutant was refused, or "opened", and the seconds it took; whatever else happens is raised."""
    path = folder / "mutant.medistill"
    path.write_bytes(content)
    started = time.monotonic()
    try:
        open_package(path, allow_unsigned=True)
        verdict = "opened"
    except PackageError as error:
        verdict = type(error).__name__
    taken = time.monotonic() - started
    assert may_open or verdict != "opened", "a mutant was taken for whole"
    assert taken < _MOST_SECONDS, f"one took {taken:.1f} s"
    return verdict, taken


def judged_all(count: int, seed: int) -> tuple[dict[str, int], float]:
    """How often each verdict came, and the longest time of one in seconds; every sixth mutant is a forged one."""
    draw, verdicts, longest = random.Random(seed), collections.Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        signed = _signed(Path(folder))
        for number in range(count):
            mutate = forged if number % 6 == 5 else draw.choice(BY_CHANCE)
            whole = GOLDEN if mutate is forged else draw.choice([GOLDEN, signed])
            content = mutate(whole, draw)
            if content == whole:
                continue
            verdict, taken = judged(content, Path(folder), may_open=mutate is forged)
            verdicts[f"{mutate.__name__}: {verdict}"] += 1
            longest = max(longest, taken)
            assert [each.name for each in Path(folder).iterdir()] == ["mutant.medistill"], "something was written"
    assert _peak_bytes() < _MOST_BYTES, "over 512 MB"
    return dict(sorted(verdicts.items())), longest


def _peak_bytes() -> int:
    """The most memory of this process; 0 where the system does not say (getrusage counts who began it)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found, slowest = judged_all(options.count, options.seed)
    print("\n".join(f"{number:9,} {verdict}" for verdict, number in found.items()))
    print(f"longest {1e3 * slowest:.0f} ms, at most {_peak_bytes() / 1e6:.0f} MB for the whole process")
