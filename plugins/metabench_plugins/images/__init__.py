"""Images in files: found in folders, lists and archives, decoded on all cores."""
