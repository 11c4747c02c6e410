"""hallujax: train with every modality you own, deploy with the one you will have."""

import importlib
from typing import Any

__all__ = ["load", "losses", "methods", "models", "player_gradients"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: `hallujax doctor` must run where JAX does not import."""
    if name == "player_gradients":
        return importlib.import_module("hallujax.game").player_gradients
    if name == "load":
        return importlib.import_module("hallujax.deploy.predictor").load
    if name in __all__:
        return importlib.import_module(f"hallujax.{name}")
    raise AttributeError(f"module 'hallujax' has no attribute {name!r}")
