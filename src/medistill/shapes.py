"""Tensor shapes by name; one axis name means one thing everywhere.

`n` images, `m` real images beside them, `c` channels, `h` and `w` pixels, `k` classes, `d` features, `p` parameters of
a network laid end to end.
"""

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "n c h w"]
Bytes = UInt8[Tensor, "n c h w"]
Targets = Float[Tensor, "n k"]
Logits = Float[Tensor, "n k"]
Features = Float[Tensor, "n d"]
RealFeatures = Float[Tensor, "m d"]
Classes = Int[Tensor, "n"]
Params = Float[Tensor, "p"]
Mask = Float[Tensor, "p"]
Scalar = Float[Tensor, ""]
