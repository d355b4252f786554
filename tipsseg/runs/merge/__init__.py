"""`tipsseg merge`: join runs or shards into one output folder."""
