"""Files made of others: merged, forgotten, or without somebody's rows.  `docs/adr/0011-…md` says how and why.

* `tables`, `ledger_rows`, `ledger`: what the catalog says of them;
* `held`: what footers say of them, and the law that holds for all files together;
* `writing`: the new files;
* `compaction`, `retention`, `erasure`: what is rewritten, and why;
* `settling`: what comes after the swap;
* `stats`: what a lake is made of.
"""
