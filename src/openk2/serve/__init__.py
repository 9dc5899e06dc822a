"""HTTP: one engine behind the APIs of OpenAI and Anthropic.

What goes out is made of the decoder's events (`openk2.chat.stream`), so a streamed answer and a whole one are the same
message, and a call that a client sees is one that the grammar has closed or is holding to its schema.
"""
