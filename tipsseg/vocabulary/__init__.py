"""The classes that are asked for: names, their files and presets, prompt templates, the background, colours."""
