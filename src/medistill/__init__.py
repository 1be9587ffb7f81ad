"""medistill: share what medical images teach without sending the images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medistill.package import open_package

__all__ = ["__version__", "open_package"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "open_package":
        from medistill.package import open_package

        return open_package
    raise AttributeError(f"module 'medistill' has no attribute {name!r}")
