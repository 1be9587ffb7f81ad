import os
import stat
from base64 import b64decode, b64encode
from datetime import date
from pathlib import Path

import minisign
import pytest

from medistill.errors import TrustError
from medistill.keys import TrustStore, new_key, read_public, read_secret
from medistill.package import fingerprint

DAY, LATER = date(2026, 11, 25), date(2027, 1, 2)


def pair(folder: Path, name: str = "own") -> tuple[Path, str]:
    secret, public = new_key(name, folder, "")
    return secret, read_public(public)


def test_a_secret_key_is_for_its_owner_alone_and_never_overwritten(tmp_path):
    secret, _ = pair(tmp_path)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    before = secret.read_bytes()
    with pytest.raises(TrustError, match=r"own\.key exists; a key is never overwritten"):
        new_key("own", tmp_path, "")
    secret.unlink()
    with pytest.raises(TrustError, match=r"own\.pub exists"):
        new_key("own", tmp_path, "")
    assert before


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden"])
def test_a_name_is_a_name_of_a_file(tmp_path, name):
    with pytest.raises(TrustError, match="is no name of a file"):
        new_key(name, tmp_path, "")
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_encrypts_the_key_and_only_it_opens_it(tmp_path):
    secret, public = new_key("own", tmp_path, "open sesame")
    assert minisign.SecretKey.from_file(secret).is_encrypted()
    for wrong in ("", "open barley"):
        with pytest.raises(TrustError, match="the passphrase is another"):
            read_secret(secret, wrong)
    found = read_secret(secret, "open sesame")
    assert found.get_public_key().to_base64().decode() == read_public(public)


def test_files_that_are_no_keys_are_named(tmp_path):
    (tmp_path / "odd.key").write_text("hello")
    (tmp_path / "odd.pub").write_bytes(b"\xff\xfe")
    with pytest.raises(TrustError, match=r"odd\.key is no secret key"):
        read_secret(tmp_path / "odd.key", "")
    with pytest.raises(TrustError, match=r"odd\.pub is no public key"):
        read_public(tmp_path / "odd.pub")
    with pytest.raises(TrustError, match=r"absent\.pub cannot be read: No such file"):
        read_public(tmp_path / "absent.pub")


def test_fingerprints_are_ten_groups_of_four_and_differ(tmp_path):
    marks = {fingerprint(pair(tmp_path, name)[1]) for name in "ab"}
    assert len(marks) == 2
    assert all([len(group) for group in mark.split()] == [4] * 10 for mark in marks)


def test_trust_is_given_once_and_does_not_come_back(tmp_path):
    store, (_, key), (_, other) = TrustStore(tmp_path / "list.json"), pair(tmp_path, "a"), pair(tmp_path, "b")
    assert store.find(key) is None
    assert store.trust("st-marys", key, DAY).since == DAY
    assert store.trust("another name", key, LATER).name == "st-marys"
    with pytest.raises(TrustError, match="st-marys stands for another key"):
        store.trust("st-marys", other, DAY)
    assert store.revoke("st-marys", LATER).revoked == LATER
    with pytest.raises(TrustError, match="This key was revoked on 2027-01-02"):
        store.trust("st-marys", key, LATER)
    with pytest.raises(TrustError, match="Found no trusted key called st-marys; there is none"):
        store.revoke("st-marys", LATER)
    assert store.trust("st-marys", other, LATER).public_key == other
    assert [entry.revoked for entry in store.entries()] == [LATER, None]


def test_a_revoked_key_is_known_by_itself_and_not_by_its_id(tmp_path):
    store, (_, key) = TrustStore(tmp_path / "list.json"), pair(tmp_path, "a")
    store.trust("st-marys", key, DAY)
    store.revoke("st-marys", LATER)
    content = bytearray(b64decode(key))
    content[5] ^= 1
    assert store.find(b64encode(content).decode()).revoked == LATER


def test_a_secret_is_not_written_into_what_somebody_left_there(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / f"own.key.{os.getpid()}.partial").symlink_to(elsewhere)
    secret, _ = pair(tmp_path)
    assert not elsewhere.exists()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_damaged_list_is_not_taken_for_an_empty_one(tmp_path):
    for content in ('[{"name": "a"}]', '[{"name": "a", "public_key": "zzz", "since": "2026-01-01"}]', "{}"):
        (tmp_path / "list.json").write_text(content)
        with pytest.raises(TrustError, match=r"list\.json is damaged"):
            TrustStore(tmp_path / "list.json").entries()


def test_the_store_lies_where_settings_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDISTILL_HOME", str(tmp_path))
    assert TrustStore.of_user().path.parent == tmp_path
    monkeypatch.delenv("MEDISTILL_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "x"))
    assert TrustStore.of_user().path.parent == tmp_path / "x" / "medistill"
