"""The page of a run that goes on (``metabench status RUN --serve``)."""
