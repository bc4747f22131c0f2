"""From records to evidence: tables, figures, verdicts and one self-contained page.

Reads only files (params.yaml, records); imports neither torch nor a method. matplotlib, scipy and jinja2 are
imported by the functions that draw, test and render.
"""
