"""`tipsseg correct`: import corrected labels into the output folder of a run."""
