"""Equality with the official pseudocode and its references; the contents tell a case's kind."""

from golden import pangu_network, pangu_tools


def test_golden(case) -> None:
    check = pangu_tools.check_for(case)
    if check is None:
        kinds = [kind for kind in pangu_network.CHECKS if kind in case.spec["outputs"]]
        assert len(kinds) == 1, f"{case.name} has the outputs {sorted(case.spec['outputs'])}"
        check = pangu_network.CHECKS[kinds[0]]
    check(case)
