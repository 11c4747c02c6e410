"""hallujax: train with every modality you own, deploy with the one you will have."""

from hallujax import losses
from hallujax.game import player_gradients

__all__ = ["losses", "player_gradients"]
