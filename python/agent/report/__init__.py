"""What a run of the load laboratory found, and the views of it.

Purpose: `model` is the result as data, `text` its summary on a terminal, `html` the report in one
file. All pure: bytes and structs in, text out; no file, clock or extension is touched.
"""
