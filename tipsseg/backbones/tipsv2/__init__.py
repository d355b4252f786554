"""Implement TIPSv2 in plain torch: configuration, towers, tokenizer, strict loading of checkpoints."""
