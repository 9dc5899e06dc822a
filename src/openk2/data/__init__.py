"""What is learned from: the corpus, token shards and batch plans."""
