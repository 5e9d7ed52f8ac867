"""What a weights file says of itself: its network, and the images which that has learned from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from dirprune.errors import WeightsError
from dirprune.networks import save_weights
from dirprune.networks.weights import read_metadata
from dirprune.study.dense import DATA, DATA_IDENTITY, DATA_SEED, NETWORK, OPTIONS, TRAINED_FROM

TRAIN_IMAGES = "train_images"


@dataclass(frozen=True)
class Header:
    """The origin of weights; empty or None where it is not known.

    Attributes:
        network: Name of the network.
        options: Its options.
        dataset: Name of the data set that it was trained on.
        validation_from: How the roles of data were cut.
        data_seed: Seed of that cut.
        train_images: Size to which the training role was limited.
        data_identity: By which the data that were cut are known again, see `DataRoles.identity`.
    """

    network: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    validation_from: str = ""
    data_seed: int | None = None
    train_images: int | None = None
    data_identity: str = ""

    def changed(self, **changes: Any) -> Header:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)

    def to_metadata(self) -> dict[str, str]:
        """Return the header as text by key, as weights files carry it; what is not known is left out."""
        known = {
            NETWORK: self.network,
            OPTIONS: json.dumps(self.options, sort_keys=True),
            DATA: self.dataset,
            TRAINED_FROM: self.validation_from,
            DATA_SEED: "" if self.data_seed is None else str(self.data_seed),
            TRAIN_IMAGES: "" if self.train_images is None else str(self.train_images),
            DATA_IDENTITY: self.data_identity,
        }
        return {key: text for key, text in known.items() if text}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> Header:
        """Rebuild a header from `to_metadata` and whatever else is in it.

        Args:
            metadata: Text by key.
            path: The file, for the message.
        Raises:
            WeightsError: If a value is not of its kind.
        """
        try:
            return cls(
                network=metadata.get(NETWORK, ""),
                options=dict(json.loads(metadata.get(OPTIONS, "{}"))),
                dataset=metadata.get(DATA, ""),
                validation_from=metadata.get(TRAINED_FROM, ""),
                data_seed=int(metadata[DATA_SEED]) if DATA_SEED in metadata else None,
                train_images=int(metadata[TRAIN_IMAGES]) if TRAIN_IMAGES in metadata else None,
                data_identity=metadata.get(DATA_IDENTITY, ""),
            )
        except (ValueError, TypeError) as error:
            raise WeightsError(
                f"expected to read where the weights come from in {path}, got {error}; try to save them again"
            ) from error


def write_weights(network: nn.Module, path: Path, header: Header) -> None:
    """Write a network's weights and their origin, whole or not at all."""
    save_weights(network, path, header.to_metadata())


def read_header(path: Path) -> Header:
    """Return the origin that a weights file states; an empty header where it states none.

    Raises:
        WeightsError: If the file or its header is broken.
    """
    return Header.from_metadata(read_metadata(path), path)
