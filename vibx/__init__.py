"""vibx: a reproduction of "Deep Variational Information Bottleneck" (Alemi et al., ICLR 2017)."""

__version__ = "0.1.0"
