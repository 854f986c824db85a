"""Corpora, splits, augmentation and batches: what a model is trained on."""
