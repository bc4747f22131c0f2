"""The papers, a folder each: all that belongs to one paper stands in its folder, and nothing else names it.

A folder holds README.md, claims.yaml, arms.yaml, diagram.svg.j2, `METHODS` in `__init__.py` and the methods' modules;
where the paper has them, also analysis.py (`analyse`), figures.py (`FIGURES`) and tables.py (`TABLES`), which
`turncoat.papers.parts` finds by these names. CONTRIBUTING.md says how a paper is added.
"""

PAPERS = ("mart", "atop", "advamd", "rat", "reverse")  # the one list, in the order of the report
