"""The page of Pareto fronts: its files, and how they become a page of a server or one file on its own.

Standard library only, so that MLflow servers and studies can both use it.
"""

from dirprune.page.files import fill_page, list_assets, read_asset
from dirprune.page.single import make_single_page

__all__ = ["fill_page", "list_assets", "make_single_page", "read_asset"]
