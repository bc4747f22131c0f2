"""Where each method stands, the comparators' and the papers': no method is imported for it."""

from turncoat.errors import TurncoatError
from turncoat.methods import METHODS
from turncoat.papers import PAPERS
from turncoat.papers.parts import methods


def known() -> dict[str, str]:
    """Every method: name -> `module:Class`, the comparators' first.

    Raises:
        TurncoatError: two folders have a method of the same name.
    """
    found = dict(METHODS)
    for paper in PAPERS:
        for name, place in methods(paper).items():
            if name in found:
                raise TurncoatError(f"turncoat/papers/{paper}: METHODS: {name} is also {found[name]}")
            found[name] = place
    return found


def module_of(method: str) -> str:
    """The dotted name of the module that the method stands in.

    Raises:
        TurncoatError: there is no such method.
    """
    places = known()
    if method not in places:
        raise TurncoatError(f"{method!r} is not defined; there are {', '.join(places)}")
    return places[method].split(":")[0]
