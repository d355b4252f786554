"""Find regions and objects in labels, and convert them to and from polygons and run-length codes."""
