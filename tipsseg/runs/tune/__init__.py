"""`tipsseg tune`: choose minimum confidences and a temperature by masks that a person edited."""
