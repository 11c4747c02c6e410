"""`hallujax serve`: a trained model behind one web page and a JSON API.

An upload goes from the socket into an anonymous temporary file (`uploads`), by descriptor to a process that decodes it
in a confined child (`decoding`, `decoder`), as a few frames into a batch of concurrent requests (`batching`, `model`),
and back as JSON (`app`). Nothing is ever opened by a name that came with a request.
"""
