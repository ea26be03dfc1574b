"""The rules of a mapping, taken apart: shapes of values, the table of parameters, rules across fields, wording.

`model.mapping_rules` is the door; everybody else imports that.
"""
