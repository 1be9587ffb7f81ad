import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medistill.errors import PackageError
from medistill.package import archive

names = st.from_regex(r"[a-z0-9_-]{1,5}(\.[a-z]{1,3})?(/[a-z]{1,3}){0,2}", fullmatch=True)
contents = st.dictionaries(names, st.binary(max_size=50), max_size=5)


@given(contents)
def test_what_was_built_is_what_parses(files: dict[str, bytes]) -> None:
    files = files | {"manifest.json": b"{}"}
    assert archive.parse(archive.build(files)) == files


@given(contents)
def test_the_order_of_adding_does_not_matter(files: dict[str, bytes]) -> None:
    assert archive.build(files) == archive.build(dict(reversed(files.items())))


def test_the_standard_library_writes_the_same_bytes_and_reads_them() -> None:
    files = {"manifest.json": b"{}", "a/b.bin": bytes(range(256)), "z.txt": b""}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            target.writestr(entry, content)
    assert archive.build(files) == stream.getvalue()
    with zipfile.ZipFile(stream) as source:
        assert source.testzip() is None


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a/", ".hidden", "a/../b", "a\\b", "é", "", "x" * 129, "c:x"])
def test_an_unsafe_name_is_not_written(name: str) -> None:
    with pytest.raises(PackageError, match="expected a relative path"):
        archive.build({name: b""})


def test_what_does_not_fit_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 200)
    with pytest.raises(PackageError, match="at most 200 are allowed"):
        archive.build({"a": bytes(200)})
    monkeypatch.setattr(archive, "MAX_ENTRIES", 1)
    with pytest.raises(PackageError, match="at most 1 fit"):
        archive.build({"a": b"", "b": b""})
