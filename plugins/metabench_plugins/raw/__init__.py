"""Raw files of published datasets: found by name, read without running their code."""
