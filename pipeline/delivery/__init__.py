"""How alerts leave: what is sent to which sink, in which words, when again, and when it is given up.

Pure: `pipeline.io.sinks` does the sending, `pipeline.io.desk.delivery_book` keeps the record.
"""
