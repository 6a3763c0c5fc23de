"""The paper's claims, re-tested at small scale over seeds: variants of the search, their runs, verdicts and a page."""
