def html(r): return ""
