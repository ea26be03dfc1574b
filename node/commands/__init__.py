"""One module per `esmd` command, loaded when the command is called.

Each module NAME.py exports the click command `NAME_command` and imports at its top only what costs little; the rest
belongs inside the command.
"""
