"""Facts in, sentences out. A report is made of clauses that people wrote, chosen by what is known; numbers, names and
categories stand in slots that facts fill, and whoever holds the report can read every claim back.

    facts      what may be said, each with its value, unit and evidence; relations are derived here, in code
    frames     the catalogue of clauses in English and Chinese, and when each may be said
    verify     reads a written report back against its facts"""
