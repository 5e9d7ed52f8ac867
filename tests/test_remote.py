"""A folder that machines share: whole files, patience with a store that is away, wrong addresses."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dirprune.errors import ConfigurationError, StorageError
from dirprune.remote import RemoteFolder, refuse_secret


@pytest.fixture(params=["folder", "address of a folder", "store"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    uris = {
        "folder": str(tmp_path / ".hidden" / "a folder"),
        "address of a folder": f"file://{tmp_path}/other",
        "store": f"memory://{uuid.uuid4().hex}",
    }
    return RemoteFolder(uris[request.param], patience_s=0.5)


def test_what_is_written_is_read_listed_and_removed(remote: RemoteFolder) -> None:
    assert remote.read("a/b") is None
    assert remote.list() == remote.list("a") == []
    remote.remove("a")
    remote.write("a/b", b"1")
    remote.write("a/c/d", b"2")
    remote.write("e", b"")
    remote.write("a/b", b"3")
    remote.write("a/.c", b"4")
    assert remote.list() == ["a/b", "a/c/d", "e"]
    assert remote.list("a") == ["a/b", "a/c/d"]
    assert (remote.read("a/b"), remote.read("e")) == (b"3", b"")
    assert remote.below("a").list() == ["b", "c/d"]
    assert remote.below("a").read("c/d") == b"2"
    remote.remove("a")
    remote.remove("a")
    assert remote.list() == ["e"]


def test_a_store_that_comes_back_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = RemoteFolder(f"memory://{uuid.uuid4().hex}", patience_s=10)
    failures = [ConnectionError("away"), TimeoutError("slow")]
    write = MemoryFileSystem.pipe_file

    def flaky(self, *arguments, **options):
        if failures:
            raise failures.pop()
        return write(self, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", flaky)
    remote.write("a", b"1")
    assert remote.read("a") == b"1"
    assert not failures


def test_a_store_that_stays_away_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self, *arguments, **options):
        raise OSError("XMinioStorageFull: Storage backend has reached its minimum free drive threshold")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", full)
    with pytest.raises(
        StorageError, match=r"cannot write to the storage memory://a \(OSError: XMinioStorageFull"
    ):
        RemoteFolder("memory://a", patience_s=0.3).write("b", b"")


def test_the_environment_says_how_long_a_store_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIRPRUNE_STORAGE_PATIENCE", raising=False)
    assert RemoteFolder("memory://a").patience_s == 120
    monkeypatch.setenv("DIRPRUNE_STORAGE_PATIENCE", "2.5")
    assert RemoteFolder("memory://a").below("b").patience_s == 2.5


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf"])
def test_a_patience_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("DIRPRUNE_STORAGE_PATIENCE", said)
    with pytest.raises(
        ConfigurationError, match=f"expected seconds in DIRPRUNE_STORAGE_PATIENCE, got '{said}'; try 120"
    ):
        RemoteFolder("memory://a")


def test_folders_pass_the_check(tmp_path: Path) -> None:
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        RemoteFolder(uri).check()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("postgresql+psycopg://host/db", r"got a postgresql\+psycopg database; .* is --optuna-storage"),
        ("s3://key:secret@bucket/x", "without a password, got one in s3://"),
        ("s3://key:sec/secret@bucket/x", "without a password, got one in s3://"),
        ("s3://secret@bucket/x", "without a password, got one in s3://"),
        ("abfs://me:secret@account/x", "without a password, got one in abfs://"),
        ("memory://studies", r"such as s3://bucket/studies for --storage, got memory://studies"),
        ("s4://bucket", r"such as s3://bucket/studies for --storage, got s4://bucket"),
        ("s3://", "expected a bucket or a folder in --storage, got s3://"),
    ],
)
def test_addresses_that_cannot_work_are_refused(uri: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        RemoteFolder(uri).check()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/a@b:c", "http://host:8000/x", "http://[::1]:8000/x", "abfs://container@account/x", "a:b@c"],
)
def test_addresses_without_a_secret_are_left_alone(uri: str) -> None:
    refuse_secret(uri, "--data")


def test_a_kind_of_store_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ConfigurationError, match=r"Install s3fs .* try pip install 'dirprune\[s3\]'"):
        RemoteFolder("s3://bucket").check()
