"""Networks out of run folders: predictions, ensembles and scores."""
