"""The plugins that come with metabench, written against the same public API as anybody's."""
