"""Vocabularies: class names, files, presets, prompt templates, background phrases and colours."""
