"""Where bytes come from and are kept: no file here knows of models or problems.

- hub: the client of the Hugging Face Hub; bucket: the client of Google Cloud Storage
- files: a folder read by byte ranges, on this machine or in a bucket
- wheels: single files inside wheels on PyPI; user_cache: the folder for downloads and stored sets
- compressed: line files under any compression; digests: SHA-256 of files
- whole_file: files replaced in one step
"""
