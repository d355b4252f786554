"""`tipsseg convert`: write the labels of an output folder in more formats, without the model."""
