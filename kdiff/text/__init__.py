"""Prompts: from texts to the conditions of a text-to-image network."""

from kdiff.text.encoder import Embedded, Encoder
from kdiff.text.encoders import Source, TextEncoders
from kdiff.text.layouts import LAYOUTS, Layout, Part
from kdiff.text.request import Request

__all__ = ["LAYOUTS", "Embedded", "Encoder", "Layout", "Part", "Request", "Source", "TextEncoders"]
