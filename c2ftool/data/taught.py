"""Stored logits of an ensemble, as the loader reads them for its clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2ftool.data.logits import LogitsFile
from c2ftool.data.order import Rows


@dataclass(frozen=True)
class Taught:
    """row_of: (N,) of each row of the set the file's row, -1 where the file has none. columns: (C,) of each class of
    the run the file's column; has: (C,) whether there is one."""

    file: LogitsFile
    row_of: Rows
    columns: Rows
    has: NDArray[np.bool_]

    def read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """((B, C, T) or (B, C) float16 logits, (B, C) bool which of them are known); 0 where they are not."""
        wanted = self.row_of[rows]
        there = wanted >= 0
        out = np.zeros((len(rows), len(self.columns), *self.file.shape[1:]), np.float16)
        if there.all() and self._whole:
            self.file.read(wanted, out)
        elif there.any():
            out[there] = self.file.read(wanted[there])[:, self.columns]
            out[:, ~self.has] = 0
        return torch.from_numpy(out), torch.from_numpy(there[:, None] & self.has)

    @property
    def _whole(self) -> bool:
        """Whether the run's classes are the file's, one by one."""
        in_order = bool((self.columns == np.arange(len(self.columns))).all())
        return in_order and len(self.columns) == self.file.shape[0] and bool(self.has.all())
