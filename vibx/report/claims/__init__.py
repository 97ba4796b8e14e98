"""The paper's checkable claims: a module for each table or figure, with `CLAIMS`.

Nothing lists them: `vibx.report.ledger` finds a module here.
"""
