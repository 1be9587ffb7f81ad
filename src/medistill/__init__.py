"""medistill: share what medical images teach without sending the images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medistill.package import open_package, verify

__all__ = ["__version__", "open_package", "verify"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("open_package", "verify"):
        from medistill import package

        return getattr(package, name)
    raise AttributeError(f"module 'medistill' has no attribute {name!r}")
