"""Using a trained model: recommendations from raw item ids, and exports for other runtimes."""
