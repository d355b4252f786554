"""TIPSv2 as plain torch modules: configuration, vision tower, text tower, tokenizer, strict checkpoint reading."""
