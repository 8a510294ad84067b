"""Examines the machine and the installation: what will not work, and what to do about it."""

from resdet.analysis.doctor.examinations import examine
from resdet.analysis.doctor.finding import Finding

__all__ = ["Finding", "examine"]
