"""Which teacher: a config, through the licence gate, to something that answers.

teacher = open_teacher(LocalTeacherConfig(checkpoint=Path("runs/first/agent"), licence="own"))
"""

from typing import Annotated

from pydantic import Field

from distillation.teachers.endpoint import EndpointTeacher, EndpointTeacherConfig
from distillation.teachers.licences import LicenceVerdict, check_licence, licence_of_address
from distillation.teachers.local import LocalTeacher, LocalTeacherConfig
from distillation.teachers.teacher import PricedTeacher

TeacherConfig = Annotated[LocalTeacherConfig | EndpointTeacherConfig, Field(discriminator="kind")]
"""A model on this machine, or one behind an endpoint."""


def judge_licence(config: LocalTeacherConfig | EndpointTeacherConfig) -> LicenceVerdict:
    """Whether a student may learn from it; for the report. Raises ConfigError when it may not."""
    if isinstance(config, LocalTeacherConfig):
        return check_licence(config.name or str(config.checkpoint), config.licence, config.licence_confirmed)
    licence = config.licence or licence_of_address(config.base_url)
    return check_licence(config.name or config.model, licence, config.licence_confirmed)


def open_teacher(config: LocalTeacherConfig | EndpointTeacherConfig) -> PricedTeacher:
    """Open it. Raises ConfigError for a licence that does not pass or a key that is missing, CheckpointError."""
    judge_licence(config)
    return LocalTeacher(config) if isinstance(config, LocalTeacherConfig) else EndpointTeacher.open(config)
