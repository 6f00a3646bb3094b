"""One decoder for Llama, Qwen2 and Qwen3, and its key/value cache."""
