"""Bars and features of one partition, made from its trades, touch and grid layers. Reads their schemas, never the code that makes them."""
