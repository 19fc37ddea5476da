"""From audio files to prepared sets, and from prepared sets to training batches.

`sources` lists the clips of a public layout, `decode` reads one clip, `prepare` packs them into shards, `store` opens
the result, `demo` makes the built-in set. The format is described in `docs/data.md` and in `write`.
"""
