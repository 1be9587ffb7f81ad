"""Several hospitals side by side: what a package is worth to a small one.

The training images of one source are shared out, by patient, among hospital A, which is large, hospital C, and hospital
B, which has a few images a class. A and C distill a package each, with their own teachers and their own validation.
Hospital B trains on its few images alone, with A's package, with both, and, as the measure of all, on everybody's real
images and in a federation with A and C. Whatever it does, it is judged on the same images, which nobody trained on.
"""

from medistill.study.forecast import forecast
from medistill.study.hospitals import Hospitals, share_out
from medistill.study.inquiry import Inquiry
from medistill.study.table import study

__all__ = ["Hospitals", "Inquiry", "forecast", "share_out", "study"]
