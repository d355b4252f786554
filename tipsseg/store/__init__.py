"""An output folder and all that stands in it beside the label files: lock, manifest, journals, run.json, errors.jsonl."""
