"""Drawn figures: the map of the model, and the figures in `images/`."""

from vit_course.figures.model import MODEL_PARTS, PALETTE, draw_model

__all__ = ["MODEL_PARTS", "PALETTE", "draw_model"]
