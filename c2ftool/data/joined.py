"""Several prepared sets as one, for pre-training: SSAST learns from AudioSet and LibriSpeech together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from c2ftool.data.coding import Int16
from c2ftool.data.record import SetInfo
from c2ftool.data.store import PreparedSet
from c2ftool.errors import UsageError

Int64 = npt.NDArray[np.int64]


class JoinedSets:
    """The clips of several sets, one set's rows after the other's; without labels.

    info: the first set's, with the joint name and fingerprint, and the statistics of all clips. Raises UsageError where
    sample rates differ.
    """

    def __init__(self, sets: Sequence[PreparedSet]) -> None:
        rates = {s.info.name: s.info.sample_rate for s in sets}
        if len(set(rates.values())) > 1:
            stored = ", ".join(f"{name} at {rate} Hz" for name, rate in rates.items())
            raise UsageError(
                f"joined sets are stored at different rates: {stored}", cure="Prepare them with one --rate."
            )
        self._sets = list(sets)
        self._starts: Int64 = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
        self.samples: Int64 = np.concatenate([s.samples for s in sets])
        self.info = _joint_info(self._sets)
        self.path = self._sets[0].path

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def ids(self) -> list[str]:
        """The clips' names."""
        return [name for s in self._sets for name in s.ids]

    def rows_of(self, place: int, rows: Int64) -> Int64:
        """The rows here of the rows of the set at a place."""
        return rows + self._starts[place]

    def waveform(self, row: int) -> Int16:
        """(samples,) int16 of a clip."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._sets[place].waveform(row - int(self._starts[place]))

    def targets(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(len(rows), 0): there are no labels."""
        return np.zeros((len(np.asarray(rows)), 0), np.float32)

    def multi_label(self, rows: npt.ArrayLike) -> bool:
        """False: there are no labels."""
        return False


def _joint_info(sets: list[PreparedSet]) -> SetInfo:
    weights = np.asarray([s.samples.sum() for s in sets], np.float64)
    means, stds = np.asarray([s.info.mean for s in sets]), np.asarray([s.info.std for s in sets])
    shares = weights / weights.sum()
    mean = float(shares @ means)
    std = float(np.sqrt(shares @ (stds**2 + means**2) - mean**2))
    prints = hashlib.sha256(" ".join(s.info.fingerprint for s in sets).encode()).hexdigest()
    return replace(
        sets[0].info, name=" + ".join(s.info.name for s in sets), mean=mean, std=std, fingerprint=prints, classes=[]
    )
