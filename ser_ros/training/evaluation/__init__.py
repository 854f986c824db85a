"""Predictions of a bundle for clips, and the metrics computed from them."""
