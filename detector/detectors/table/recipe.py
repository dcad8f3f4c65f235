"""How a table's members are fitted: the parameters, checked."""

from __future__ import annotations

from dataclasses import dataclass

from detector.checks import check_interval, check_least, check_seed, check_whole, one_of
from detector.decide.calibrate import TAILS
from detector.detectors.table.scorer import TabularScorer
from detector.encoders.events import EventAutoencoder
from detector.encoders.table import TableAutoencoder
from detector.errors import SettingError
from detector.members.event_sequence import Steps
from detector.training.settings import OnStep

AUTOENCODER, FOREST, NEIGHBOURS = MEMBERS = ("autoencoder", "forest", "neighbours")
SEQUENCE = "sequence"
KNOWN, EVERY = CALIBRATING = ("known", "all")


@dataclass(frozen=True)
class Recipe:
    """How a table's members are fitted; the parameters are those of ``TabularDetector``.

    Raises
    ------
    SettingError
        If a parameter has no meaning.
    """

    members: tuple[str, ...]
    autoencoder: TableAutoencoder
    trees: int
    max_samples: int
    references: int
    kernel_references: int
    clean_references: int
    clean_share: float
    calibration_share: float
    calibrate_on: str
    tail: str
    max_levels: int
    name: str
    random_state: int
    events: EventAutoencoder | None = None
    steps: Steps | None = None
    warm_start: TabularScorer | None = None
    on_step: OnStep | None = None

    def __post_init__(self) -> None:
        if not self.members or any(name not in (*MEMBERS, SEQUENCE) for name in self.members):
            raise SettingError(
                f"members must be some of {', '.join((*MEMBERS, SEQUENCE))}. Received: members={self.members!r}."
            )
        if SEQUENCE in self.members and self.steps is None:
            raise SettingError("The member sequence expected steps, received none. Say which columns are its events.")
        sizes = ("trees", "max_samples", "references", "kernel_references", "clean_references", "max_levels")
        check_least(self, 1, *sizes)
        check_whole(self, *sizes)
        check_seed(self)
        check_interval(self, "(0, 1)", "calibration_share")
        check_interval(self, "[0, 1)", "clean_share")
        one_of("calibrate_on", self.calibrate_on, CALIBRATING)
        one_of("tail", self.tail, TAILS)

    def report(self, what: str, done: int = 0, planned: int = 1) -> None:
        """Report progress to whoever asked for it."""
        if self.on_step is not None:
            self.on_step(what, done, planned)
