"""Known public checkpoints, as data: what `model.weights: public:NAME` takes.

Addresses are those of the authors' READMEs, notebooks and code; where these lead to a page that only a browser can use,
a copy elsewhere stands here if its hash is on record. No author states a SHA-256: those here are what public users of a
file recorded. Without one, the first download's is kept beside the file and checked from then on. ImageNet weights of
timm are on timm's record: see timm_records.py.
"""

from __future__ import annotations

from c2ftool.models.public.record import PublicWeights, Source
from c2ftool.models.public.records_ast import AST
from c2ftool.models.public.records_eat import EAT
from c2ftool.models.public.records_htsat import CNN14, HTSAT
from c2ftool.models.public.records_sed import ASIT, ATST, BEATS, M2D, SED
from c2ftool.models.public.records_ssast import SSAST

__all__ = ["PUBLIC_WEIGHTS", "PublicWeights", "Source"]

PUBLIC_WEIGHTS: dict[str, PublicWeights] = {
    record.name: record for record in (*EAT, *AST, *SSAST, *HTSAT, *CNN14, *BEATS, *ATST, *M2D, *ASIT, *SED)
}
