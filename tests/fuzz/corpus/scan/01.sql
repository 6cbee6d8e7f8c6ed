SELECT E'a'
'\':a' || :b