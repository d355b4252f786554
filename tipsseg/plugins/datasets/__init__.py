"""Write labels and images as data sets of shards, and read images in Parquet files."""

from tipsseg.say import NOTES

NOTES |= {
    "datasets.writing_dataset": "Writing {images} as {form} into {place}.",
    "datasets.dataset": "{images} in {shards} ({size}), in {place}; written in {seconds} s{failed}",
    "datasets.pictures_encoded": "Wrote {pictures} as PNG: {why}.",
}
