"""Similar images: those whose features are nearest to a query image's."""
