"""The one loop: stores, batches, updates, collection, evaluation, phases and checkpoints."""
