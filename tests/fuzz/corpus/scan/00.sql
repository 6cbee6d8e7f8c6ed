SELECT :id::int, ':x', E'\\' || :a -- :b
