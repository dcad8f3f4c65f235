"""An alert in words: facts, sentence, templates, links."""
