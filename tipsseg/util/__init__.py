"""Files, records, texts and threads: nothing here knows of images or labels."""
