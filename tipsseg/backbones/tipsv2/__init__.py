"""Implement TIPSv2 in plain torch: configuration, towers, tokenizer, and strict checkpoint loading."""
