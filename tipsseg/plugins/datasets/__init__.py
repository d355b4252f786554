"""Write labels and images as data sets of shards, and read images in Parquet files."""
