"""Which files a source is made of."""

import zipfile

import pytest

from medistill.sources.opening import files_of


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A home with a folder of two films, a table of them, a zip and an npz."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("films/ill/a.png", "films/well/b.png", "films/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "films/listed.csv").write_text("path,label\r\nill\\a.png,ill\r\n./well/b.png ,well\r\n")
    (tmp_path / "films.npz").write_bytes(b"npz")
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        archive.writestr("ill/a.png", b"a")
    (tmp_path / "zipped.csv").write_text("path,label\nill/a.png,ill\n")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("films.npz", ["films.npz"]),
        ("films.npz#test", ["films.npz"]),
        ("zipped.zip", ["zipped.zip"]),
        ("films", ["films/ill/a.png", "films/listed.csv", "films/well/b.png"]),
        ("films/listed.csv", ["films/ill/a.png", "films/well/b.png"]),
        ("zipped.csv", ["zipped.zip"]),
    ],
)
def test_the_files_of_a_source_are_those_that_hold_its_images(place, source, files):
    assert files_of(str(place / source)) == [place / name for name in files]
    assert files_of(f"~/{source}") == [place / name for name in files]


def test_phantoms_have_no_files_even_beside_a_folder_of_that_name(place):
    (place / "phantom").mkdir()
    (place / "phantom/a.png").write_bytes(b"a")
    assert files_of("phantom") == files_of("phantom#train") == []
