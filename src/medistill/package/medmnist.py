"""The images once more as MedMNIST keeps them, for code that reads nothing else: 8-bit pixels, one label each.

An .npz is a zip of .npy files; like everything here it has one form, that of `archive`.

Source: Yang et al., Scientific Data 2023 (doi 10.1038/s41597-022-01721-8): keys, shapes and types of a MedMNIST file.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from medistill.package import archive
from medistill.package.tensors import HardOrSoft, Images, eight_bits

PATH = "data/medmnist.npz"


def render(images: Images, labels: HardOrSoft) -> bytes:
    """The file: `train_images` uint8 [n, height, width] or [n, height, width, 3], `train_labels` [n, 1].

    Intensities are cut to 0..1 and rounded to 8 bits, soft labels to their most probable class, as in the previews.
    """
    classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
    pixels = np.stack([eight_bits(image) for image in images]).transpose(0, 2, 3, 1)  # one by one, for memory's sake
    numbers = classes.astype(np.uint8) if classes.max() < 256 else classes.astype(np.uint16)
    return archive.build(
        {
            "train_images.npy": _npy(pixels[..., 0] if pixels.shape[-1] == 1 else pixels),
            "train_labels.npy": _npy(numbers[:, None]),
        }
    )


def _npy(array: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Version 1.0 of the format, its header padded with the fewest spaces: numpy's own padding has changed before."""
    about = f"{{'descr': '{array.dtype.newbyteorder('<').str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    padded = about + " " * (-(len(about) + 11) % 64) + "\n"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("ascii")
    return header + array.astype(array.dtype.newbyteorder("<")).tobytes()
