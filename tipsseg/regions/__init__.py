"""Labels as regions: components, run-length codes, polygons, objects."""
