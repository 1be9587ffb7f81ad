"""medistill: share what medical images teach without sending the images."""

__version__ = "0.1.0"
