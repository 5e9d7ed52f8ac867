"""Images in a bucket, read through S3's own protocol from a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer

from dirprune.data import load_data
from dirprune.data.views import RandomCrops
from dirprune.errors import DataError

from .photograph_folders import write_folders, write_shards
from .test_streaming import SIZE, assert_same_roles, pass_over


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local folder with class folders and shards, and the same in the bucket `shop`."""
    root = tmp_path_factory.mktemp("pictures")
    write_folders(root / "folders", n_train=6, n_held_out=3)
    write_shards(root / "shards", root / "folders")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "XDG_CACHE_HOME": str(root / "cache"),
        }.items():
            environment.setenv(name, value)
        store = fsspec.filesystem("s3")
        store.clear_instance_cache()
        store.mkdir("s3://shop")
        for kind in ("folders", "shards"):
            store.put(str(root / kind), f"s3://shop/{kind}", recursive=True)
        yield root
        store.rm("s3://shop", recursive=True)
        store.clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_a_bucket_holds_what_the_folder_holds(pictures: Path) -> None:
    choices = {"validation_from": "test:0.5"}
    expected = load_data(f"folders:{SIZE}", pictures / "folders", **choices)
    crops = RandomCrops(0.4, 1)
    for kind in ("folders", "shards"):
        local, remote = (
            load_data(f"stream:{SIZE}", root, **choices) for root in (pictures / kind, f"s3://shop/{kind}")
        )
        assert_same_roles(remote, expected)
        assert local.fingerprint() == remote.fingerprint()
        for n_workers in (0, 2):
            found, wanted = (pass_over(split.train, n_workers, crops)[0] for split in (remote, local))
            assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "s3://shop/shard",
            r"^expected data in s3://shop/shard, found nothing there; did you mean 'shards'\?$",
        ),
        (
            "s3://shopp/shards",
            r"^expected data in s3://shopp/shards, found nothing there; check the spelling",
        ),
        ("s3://shop", r"^expected train/<class>/<image> .* in s3://shop, .* found 'folders', 'shards'$"),
    ],
)
def test_a_wrong_address_is_one_clear_line(pictures: Path, uri: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"stream:{SIZE}", uri)
