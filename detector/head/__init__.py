"""The supervised head (`train.head`): boosted trees over labels, which decide once they have ranked better."""
