"""`tipsseg tune`: choose minimum confidences and a temperature from edited masks."""
