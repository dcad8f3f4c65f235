"""What scores: forest, neighbours, window PCA, forecast, event sequence. One file a member."""
