"""Built-in executors beside the processes of this computer."""
