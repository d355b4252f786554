"""`tipsseg label`: label images into an output folder."""
