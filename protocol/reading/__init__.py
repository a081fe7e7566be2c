"""What a note says, read the same way in training and on a gateway.

notes      a note, what was understood of it, and what a reader's bundle holds
tokens     text to token ids, as the bundle's tokenizer.json says (nothing to install on a gateway)"""
