"""One self-contained HTML page about one or several runs: no network, no server."""
