"""What `tipsseg correct` does: corrected labels come back into the output folder of a run."""
