"""Models in and out of files: Hugging Face folders, GGUF, Orbax, and the sources that hold them.

- source: from a model source to a decoder and its tokenizer; hub_model, pypi_models: two sources
- parameters: parts of stored parameters, read and placed on devices; layout: their shape in files
- safetensors, orbax_folder, gguf, gguf_header, gguf_rope, gguf_tokenizer: the file formats
- hf_config, hf_fields, hf_rope: config.json; tokenizer: a folder's tokenizer, and decoding
- export: writing models
"""
