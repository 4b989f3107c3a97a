"""From raw click logs to batches: clicks -> protocol -> sessions -> samples."""
