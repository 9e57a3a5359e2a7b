"""Training: the trainer, its callbacks, and the folder of a run."""

from .callbacks import Callback
from .history import History
from .plots import plot_confusion_matrix, plot_curves, plot_run
from .run_folder import RunFolder
from .trainer import Trainer

__all__ = ["Callback", "History", "RunFolder", "Trainer", "plot_confusion_matrix", "plot_curves", "plot_run"]
