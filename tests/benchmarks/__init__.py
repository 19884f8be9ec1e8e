"""
How fast it is, beside stock PB and others: ``python -m tests.benchmarks --help``.

`__main__` reads the options. `suite` measures part after part (`calls`, `logins`, `memory`,
`growth`), as much as a `plan` says, in processes of their own: `program` is the harness's end of
one, `child` the other. `peers` has a module for each that is measured. `bars` holds the figures
against what is to be reached, `report` makes the tables and `picture` the picture, all from the one
dict that is also the JSON.

No time is ever asserted: `tests.benchmarks.smoke` runs the least plan and looks at the form.
"""
