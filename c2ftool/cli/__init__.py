"""The commands: one short file each. They parse, call the engine and print; nothing heavy is imported at the top."""
