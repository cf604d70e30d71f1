"""Local search on schedules: compiled moves, judged first by a bound that costs one pass."""

from baechi.placers.search.descend import improve, tries_for
from baechi.placers.search.justify import justify, passes_for

__all__ = ["improve", "justify", "passes_for", "tries_for"]
