"""How good the path of a run was: expectations of cases, checks without a judge, suites of cases, and scores."""
