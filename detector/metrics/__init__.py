"""How good a ranking, a decision, a set of events is; drift; injected anomalies; two detectors compared."""
