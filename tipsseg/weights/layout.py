"""The hub layout: the files that a folder with a model holds."""

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.model"

#: What a model in the hub layout consists of.
FILES = (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)

#: The hint where one of them is not there.
FOLDER_HINT = f"A model folder holds {', '.join(FILES)}."
