"""The checks, one function each: a stand in, figures out. Which are run and what is asked: serving.chaos.suite."""
