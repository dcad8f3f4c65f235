"""The service: scheduler, leader, runs, pages for machines and people."""
