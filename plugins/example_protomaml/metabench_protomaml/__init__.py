"""ProtoMAML for metabench."""
