"""Named ops: each is one declaration whose body, written in other ops, is its semantics."""
