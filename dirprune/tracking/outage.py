"""What a user is told of an MLflow that is away: one line when it goes, and one when it is back."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime

from dirprune.addresses import describe_address, mask_secrets
from dirprune.errors import one_line
from dirprune.records.folder import StudyFolder
from dirprune.tracking.server import default_tracking_uri

logger = logging.getLogger("dirprune.tracking")


class Outage:
    """Warn of the first failure in a row and of none that follows, and say when all is well again.

    Args:
        tracking_uri: The store.
        folder: The study's.

    Attributes:
        missing: What was said to be missing in MLflow, in words.
    """

    def __init__(self, tracking_uri: str, folder: StudyFolder) -> None:
        self._uri = tracking_uri
        self._sync = f"dirprune sync {shlex.quote(str(folder.root))}"
        if tracking_uri != default_tracking_uri(folder.output):
            self._sync += f" --tracking-uri {shlex.quote(mask_secrets(tracking_uri))}"
        self._has_begun = False
        self.missing: list[str] = []

    def begin(self, error: Exception, end: str = "", missing: Sequence[str] = ()) -> None:
        """Note that MLflow failed.

        Args:
            error: What it raised.
            end: What has become of the study, such as "has ended"; empty: it goes on.
            missing: What is not in MLflow then, in words.
        """
        if self._has_begun:
            return
        self._has_begun = True
        self.missing = list(missing)
        is_away, why = _explain(error, self._uri)
        follows = (
            f"the study {end} and nothing is lost: its own records keep all; not in MLflow: "
            f"{', '.join(missing)}, which {self._sync} sends{' when MLflow is back' if is_away else ''}"
            if end
            else "the study goes on and nothing is lost: its own records keep all, "
            f"and it is sent when MLflow is back, or by {self._sync}"
        )
        logger.warning(
            "MLflow at %s %s since %s (%s); %s",
            describe_address(self._uri),
            "has not answered" if is_away else "has not taken everything",
            _now(),
            why,
            follows,
        )

    def end(self) -> None:
        """Note that MLflow has taken everything."""
        if self._has_begun:
            self._has_begun = False
            self.missing = []
            shown = describe_address(self._uri)
            logger.warning("MLflow at %s is back since %s; what it lacked has been sent", shown, _now())


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M:%S}"


def _explain(error: Exception, address: str) -> tuple[bool, str]:
    """Return whether a store could not be reached, and why it failed, without what libraries say around it.

    MLflow's client, requests and urllib3 each wrap what the one below says.
    """
    links = [one for one in _unwrap(error) if isinstance(one, OSError) or _is_of_urllib3(one)]
    if not links:
        return False, one_line(error, has_type=True, address=address)
    is_away = any(isinstance(one, ConnectionError | TimeoutError) or _is_of_urllib3(one) for one in links)
    return is_away, one_line(getattr(links[-1], "strerror", None) or links[-1], address=address)


def _is_of_urllib3(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "urllib3"


def _unwrap(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and each one because of which the one before was raised, or that it only names."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        yield following
        seen.append(following)
        named = next((part for part in following.args if isinstance(part, BaseException)), None)
        following = following.__cause__ or following.__context__ or named
