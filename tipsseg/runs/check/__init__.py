"""`tipsseg check`: verify an output folder or a feature store."""
