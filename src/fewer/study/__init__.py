"""Human feedback on how images look: the words, the web server and its store, and the scores of raters.

Nothing here knows a model. The task ``quality`` turns what people wrote into instruction data.
"""
