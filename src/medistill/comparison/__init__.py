"""Several methods side by side, on the same images, networks and rates.

A row says what its networks may have seen. At the *budget* a receiver has `distill.ipc` images a class and nothing
else, whatever they are: real ones, chosen or random, or synthetic ones; self-supervision too learns from those alone.
Only transfer begins with what other images taught, which its name says. *Unlabelled*, a receiver has all training
images, but labels for the budget's only. *Full* is every image with its label. Everything is repeated for several
seeds: distillation, choice of images, pre-training and networks.
"""

from medistill.comparison.forecast import forecast
from medistill.comparison.question import METHODS, Question, quickened
from medistill.comparison.table import compare

__all__ = ["METHODS", "Question", "compare", "forecast", "quickened"]
