"""Files, names and labels of images, as people and other tools write them: untrusted, and read by the formats."""
