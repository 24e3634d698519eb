"""`CurationConfig`: what of the records is trained on; the settings of all steps of `curate.py`."""

from pydantic import Field

from distillation.curation.balance import Balance
from distillation.curation.decontamination import Decontamination
from distillation.curation.near_duplicates import NearDuplicates
from distillation.curation.pii import KINDS, Kind
from distillation.curation.quality import Quality
from phases.strict import StrictModel


class CurationConfig(StrictModel):
    """What of the records is trained on."""

    redact: tuple[Kind, ...] = KINDS
    """Kinds of personal data and secrets that become placeholders; names of people are never found."""
    keep_conflicts: bool = False
    """Whether questions with conflicting right answers stay."""
    quality: Quality = Quality()
    """What a record has to be like."""
    near_duplicates: NearDuplicates | None = Field(default_factory=NearDuplicates)
    """How alike two questions may be; null lets them all stay."""
    decontamination: Decontamination = Decontamination()
    """What counts as a leak of the sealed evaluation."""
    balance: Balance = Balance()
    """How many records each group may have."""
