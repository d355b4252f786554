"""Vocabularies: class names, their files and presets, prompt templates, the background, colours."""
