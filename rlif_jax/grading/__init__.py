"""Programs in files judged against the tests of their problems, and what is written of it."""
