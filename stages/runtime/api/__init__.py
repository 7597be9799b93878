"""Chat-completion endpoints: requests, their cost, replies and where they are kept."""
