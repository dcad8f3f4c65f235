"""What a policy would have found: refit by periods, score what came after, count."""
