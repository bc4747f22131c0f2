"""One short script a DVC stage: read settings, call the library, write what dvc.yaml promises."""
