"""The commands of `stillwatch`, one file each: parse, wire, call, print."""
