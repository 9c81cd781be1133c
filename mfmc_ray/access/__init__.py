"""Who may see a face: what tables say, and the decision per face."""
